package download

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
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
	_, throttled := retry.DefaultThrottleErrorCodes[a.code]
	wrong := a.status >= http.StatusBadRequest && a.status < http.StatusInternalServerError
	busy := throttled || a.status == http.StatusTooManyRequests
	if busy || !wrong || !a.named() || slices.Contains(ofTheBucket, a.code) {
		return AllObjects
	}
	return OneObject
}

// broken are the ways in which a connection ends, or does not begin, as the kernel tells
// them. An errno that is none of these is not the network's.
var broken = []error{
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	syscall.ENETDOWN, syscall.ENETRESET, syscall.ENETUNREACH, syscall.EPIPE, syscall.ETIMEDOUT,
}

// unreachable reports whether S3 could not be talked to. An errno by itself is a
// net.Error to the language, whatever it says.
func unreachable(err error) bool {
	var file *fs.PathError
	if errors.As(err, &file) {
		return false
	}
	var sending interface{ ConnectionError() bool } // of the client: the request could not be sent
	if errors.As(err, &sending) && sending.ConnectionError() {
		return true
	}
	var netErr net.Error
	if errors.As(err, &netErr) {
		if _, bare := netErr.(syscall.Errno); !bare {
			return true
		}
	}
	return slices.ContainsFunc(broken, func(is error) bool { return errors.Is(err, is) })
}
