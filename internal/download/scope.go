package download

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"imagemanager.internal/internal/awserr"
)

// Extent is the range of a failure.
type Extent int

// The extents.
const (
	// Local is a failure on this side of S3: the disk, the caller's context. It also
	// stands for no error.
	Local Extent = iota
	// OneObject is an answer about this object, or a failure in the middle of its bytes.
	OneObject
	// AllObjects is a failure that any other object would have met as well.
	AllObjects
)

// Scope returns the extent of an error of a Downloader or a Bucket, as far as known:
//
//	Local       nil, ErrMissing, ErrToken, an errno of the disk, context.Canceled,
//	            anything unknown
//	OneObject   ErrKey, ErrGone, ErrChanged, ErrTooBig, ErrRefused, ErrArchived,
//	            ErrKMS, ErrDenied, ErrShort, ErrCorrupt, other codes of status 4xx
//	AllObjects  ErrCredentials, ErrNoBucket, ErrNotS3, ErrStalled, no connection
//	            (name, route, TLS), no answer in time, 5xx, throttling, another
//	            region or place, 4xx without a code
//
// Some errors look alike in both cases, and the caller should check further:
//
//   - AllObjects may have passed in the meantime, or concern this object alone (an S3
//     failing for one key). If [Bucket.Probe] succeeds, the failure is this object's.
//   - ErrDenied and ErrKMS concern one object unless several different ones have them: a
//     policy or a key may apply to all. Probe does not help: it needs another right.
//   - ErrRefused is final only while Probe succeeds: a bucket refusing every request may
//     answer each with the same code.
//
// A deadline of the caller's own context looks like no answer in time: check the context
// first.
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

// bucketCodes are the codes with a status from 400 to 499 about other things than an
// object.
var bucketCodes = []string{
	"AuthorizationHeaderMalformed", // signed for another region
	"IllegalLocationConstraintException",
	"InvalidBucketName",
	"OperationAborted", // the bucket is being made or removed
	"RequestTimeout",
}

// scope is the extent of an answer without a sentinel.
func (a *answerError) scope() Extent {
	wrong := a.status >= http.StatusBadRequest && a.status < http.StatusInternalServerError
	busy := awserr.IsThrottling(a.code) || a.status == http.StatusTooManyRequests
	if busy || !wrong || !a.hasCode() || slices.Contains(bucketCodes, a.code) {
		return AllObjects
	}
	return OneObject
}

// unreachable reports whether S3 could not be talked to.
func unreachable(err error) bool {
	var file *fs.PathError
	return !errors.As(err, &file) && awserr.Disconnected(err)
}
