package download

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"imagemanager.internal/internal/awserr"
)

// Extent says whom a failure concerns.
type Extent int

// The extents.
const (
	// Local is what did not come from S3: the disk, the caller's context, no error at
	// all.
	Local Extent = iota
	// OneObject is an answer about this object, or a failure in the middle of its bytes.
	OneObject
	// AllObjects is what would have hit any other object as well.
	AllObjects
)

// Scope reports whom an error of a Downloader or a Bucket concerns, as far as it tells:
//
//	Local       nil, ErrMissing, ErrToken, an errno of the disk, context.Canceled, the unknown
//	OneObject   ErrKey, ErrGone, ErrChanged, ErrTooBig, ErrRefused, ErrArchived,
//	            ErrKMS, ErrDenied, ErrShort, ErrCorrupt, other codes of status 4xx
//	AllObjects  ErrCredentials, ErrNoBucket, ErrNotS3, ErrStalled, no connection
//	            (name, route, TLS), no answer in time, 5xx, throttling, another
//	            region or place, 4xx without a code
//
// It is a guess where the two look alike, and the caller should look further:
//
//   - AllObjects may be over by now, or hit this object alone (an S3 that is ill for one
//     key). [Bucket.Probe] tells whether the bucket answers: if it does, the failure is
//     this object's.
//   - ErrDenied and ErrKMS are about one object unless several different ones have them:
//     a policy or a key may be for all. Probe does not tell: it needs another right.
//   - ErrRefused is for good only while Probe succeeds: a bucket that takes no request at
//     all may answer each of them by the same code.
//
// The end of the caller's own context by a deadline looks like no answer in time: look at
// the context first.
func Scope(err error) Extent {
	for _, s := range scopes {
		if errors.Is(err, s.is) {
			return s.extent
		}
	}
	if a := answerOf(err); a != nil {
		return a.scope()
	}
	if unreachable(err) || errors.Is(err, context.DeadlineExceeded) {
		return AllObjects
	}
	return Local
}

// scopes is searched from the top.
var scopes = []struct {
	is     error
	extent Extent
}{
	{ErrCredentials, AllObjects},
	{ErrNoBucket, AllObjects},
	{ErrNotS3, AllObjects},
	{ErrStalled, AllObjects},
	{ErrKey, OneObject},
	{ErrGone, OneObject},
	{ErrChanged, OneObject},
	{ErrTooBig, OneObject},
	{ErrRefused, OneObject},
	{ErrArchived, OneObject},
	{ErrKMS, OneObject},
	{ErrDenied, OneObject},
	{ErrShort, OneObject},
	{ErrToken, Local},
	{ErrMissing, Local},
	{ErrCorrupt, OneObject},
}

// ofTheBucket are codes with a status from 400 to 499 that are not about an object.
var ofTheBucket = []string{
	"AuthorizationHeaderMalformed", // signed for another region
	"IllegalLocationConstraintException",
	"InvalidBucketName",
	"OperationAborted", // the bucket is being made or removed
	"RequestTimeout",
}

// scope is that of an answer which has no sentinel.
func (a *answerError) scope() Extent {
	wrong := a.status >= http.StatusBadRequest && a.status < http.StatusInternalServerError
	busy := awserr.IsThrottling(a.code) || a.status == http.StatusTooManyRequests
	if busy || !wrong || !a.named() || slices.Contains(ofTheBucket, a.code) {
		return AllObjects
	}
	return OneObject
}

// unreachable reports whether S3 could not be talked to.
func unreachable(err error) bool {
	var file *fs.PathError
	return !errors.As(err, &file) && awserr.Disconnected(err)
}
