package download

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

var (
	// ErrKey says that an object key is not one that this system takes.
	ErrKey = errors.New("object key refused")
	// ErrGone says that the object, or the version of it that was notified, does not exist any more.
	ErrGone = errors.New("object is gone")
	// ErrNoBucket says that the bucket does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrDenied says that S3 refused access. It may hide a missing object; see its text.
	ErrDenied = errors.New("access denied (S3 says so of a missing key, too, where s3:ListBucket is not granted)")
	// ErrChanged says that the key holds other bytes than those notified: it was overwritten since.
	ErrChanged = errors.New("object changed since it was notified")
	// ErrTooBig says that the object is larger than the limit.
	ErrTooBig = errors.New("object is too big")
	// ErrShort says that the connection ended before the object did. The next attempt may bring all of it.
	ErrShort = errors.New("object body ended early")
	// ErrStalled says that no byte came for too long. It is a context.DeadlineExceeded as well.
	ErrStalled = fmt.Errorf("download stalled: %w", context.DeadlineExceeded)
	// ErrMissing says that a blob's file is not there.
	ErrMissing = errors.New("blob is missing")
	// ErrCorrupt says that bytes are not those they should be: a checksum or a size differs.
	ErrCorrupt = errors.New("blob is corrupt")
)

// byCode gives the meaning of S3's error codes, as listed in the API reference under "Error responses". MethodNotAllowed is how S3
// answers for a version that is a delete marker.
var byCode = map[string]error{
	"NoSuchKey":          ErrGone,
	"NoSuchVersion":      ErrGone,
	"MethodNotAllowed":   ErrGone,
	"NoSuchBucket":       ErrNoBucket,
	"PreconditionFailed": ErrChanged,
	"AccessDenied":       ErrDenied,
}

// byStatus gives the meaning of an answer whose code says nothing to us. A bare 404 is not among them: S3 names what is missing, so
// it came from something else, such as a proxy or a wrong endpoint, and tells nothing about the object.
var byStatus = map[int]error{
	http.StatusPreconditionFailed: ErrChanged,
	http.StatusForbidden:          ErrDenied,
}

// archived is the code of an object in an archive storage class. It comes with status 403 and has nothing to do with permissions.
const archived = "InvalidObjectState"

// translate puts a sentinel before an error of the S3 client where its meaning is known. The error itself stays in the chain.
func translate(err error) error {
	var absent *types.NotFound // HeadObject's only: an answer without a body cannot name what is missing
	if errors.As(err, &absent) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if api.ErrorCode() == archived {
			return err
		}
		if is, known := byCode[api.ErrorCode()]; known {
			return fmt.Errorf("%w: %w", is, err)
		}
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		if is, known := byStatus[response.HTTPStatusCode()]; known {
			return fmt.Errorf("%w: %w", is, err)
		}
	}
	return err
}
