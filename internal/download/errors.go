package download

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

var (
	// ErrKey says that an object key is not one that this system takes.
	ErrKey = errors.New("object key refused")
	// ErrGone says that the object, or the version of it that was notified, does not
	// exist any more.
	ErrGone = errors.New("object is gone")
	// ErrNoBucket says that the bucket does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrDenied says that S3 knows who asks and refuses access. It may hide a missing
	// object; see its text.
	ErrDenied = errors.New("access denied (S3 says so of a missing key, too, where s3:ListBucket is not granted)")
	// ErrCredentials says that S3 does not know who asks: no credentials, or wrong or
	// expired ones, or a clock that is wrong.
	ErrCredentials = errors.New("credentials are not accepted")
	// ErrRefused says that S3 will never hand out this object as it is, whoever asks: one
	// that was stored with a customer's own key (SSE-C), say. Its text has S3's code and
	// reason.
	ErrRefused = errors.New("S3 refuses this object")
	// ErrArchived says that the object lies in an archive storage class and must be
	// restored before it can be had.
	ErrArchived = errors.New("object is archived (restore it, then submit it again)")
	// ErrKMS says that the key that the object is encrypted with is disabled, about to be
	// deleted, or cannot be used.
	ErrKMS = errors.New("object's encryption key cannot be used")
	// ErrNotS3 says that an answer is not known to be S3's, as the page of a proxy, a
	// load balancer or a captive portal, or was altered by one of them on its way. It
	// tells nothing about any object.
	ErrNotS3 = errors.New("answer is not S3's but that of a proxy, a load balancer or another server")
	// ErrToken says that S3 does not know the token of a page of a listing any more.
	ErrToken = errors.New("listing cannot be continued")
	// ErrChanged says that the key holds other bytes than those notified: it was
	// overwritten since.
	ErrChanged = errors.New("object changed since it was notified")
	// ErrTooBig says that the object is larger than the limit.
	ErrTooBig = errors.New("object is too big")
	// ErrShort says that the connection ended before the object did. The next attempt may
	// bring all of it.
	ErrShort = errors.New("object body ended early")
	// ErrStalled says that no byte came for too long. It is a context.DeadlineExceeded as
	// well.
	ErrStalled = fmt.Errorf("download stalled: %w", context.DeadlineExceeded)
	// ErrMissing says that a blob's file is not there.
	ErrMissing = errors.New("blob is missing")
	// ErrCorrupt says that bytes are not those they should be: a checksum or a size
	// differs.
	ErrCorrupt = errors.New("blob is corrupt")
)

// byCode gives the meaning of S3's error codes, as listed in the API reference under
// "Error responses". What is missing here means nothing more than its status: see Scope.
//
// Only a 400 that is about how the object was stored is a refusal for good.
// InvalidArgument is not: over plain HTTP it is the answer for every object encrypted by
// KMS.
var byCode = map[string]error{
	"NoSuchKey":        ErrGone,
	"NoSuchVersion":    ErrGone,
	"MethodNotAllowed": ErrGone, // the version is a delete marker
	"NotFound":         ErrGone, // to a HEAD; see translate

	"PreconditionFailed": ErrChanged,
	"NoSuchBucket":       ErrNoBucket,
	"AccessDenied":       ErrDenied,
	"InvalidObjectState": ErrArchived,

	"InvalidRequest":  ErrRefused, // stored with a customer's key, which the request does not have
	"KeyTooLongError": ErrRefused,
	"ResourceIsEncryptedWithCustomerEncryptionKey": ErrRefused, // the same as Google says it
}

// kms begins the codes that S3 passes on from the key management service, such as
// KMS.DisabledException. A right on the key that is missing is AccessDenied.
const kms = "KMS."

// byStatus gives the meaning of an answer of S3 whose code says nothing to us.
var byStatus = map[int]error{
	http.StatusPreconditionFailed: ErrChanged,
	http.StatusForbidden:          ErrDenied,
	http.StatusUnauthorized:       ErrCredentials,
}

// answerError is an error that S3, or whoever answered for it, sent.
type answerError struct {
	operation, code, message, requestID string
	status                              int
	err                                 error // as the client returned it
}

// answerOf finds the answer in an error of the client, nil if there came none. The client
// makes a response of status 0 of a connection that brought none.
func answerOf(err error) *answerError {
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil || response.HTTPStatusCode() == 0 {
		return nil
	}
	a := &answerError{status: response.HTTPStatusCode(), requestID: response.RequestID, err: err}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		a.operation = op.Operation()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	return a
}

// named reports whether the answer itself has a code of S3. Without one, as to a HEAD or
// in a proxy's page, the client makes code and message of the status.
func (a *answerError) named() bool {
	text := http.StatusText(a.status)
	derived := a.code == strings.ReplaceAll(text, " ", "") && (a.message == "" || a.message == text)
	return a.code != "" && a.code != "UnknownError" && !derived
}

// foreign reports whether nothing shows that the answer is S3's. That S3 is ill or too
// busy is taken from anybody: it is no fact about an object.
func (a *answerError) foreign() bool {
	ill := a.status >= http.StatusInternalServerError || a.status == http.StatusTooManyRequests
	return !ill && !a.named() && a.requestID == ""
}

// meaning is the sentinel for the answer, nil if it has none.
func (a *answerError) meaning() error {
	switch {
	case a.foreign():
		return ErrNotS3
	case strings.HasPrefix(a.code, kms):
		return ErrKMS
	case a.code == "NotFound" && !strings.HasPrefix(a.operation, "Head"):
		return nil // S3 names what is missing
	case awserr.IsCredentials(a.code):
		return ErrCredentials
	case byCode[a.code] != nil:
		return byCode[a.code]
	}
	return byStatus[a.status]
}

// Error says first what a reader looks for, S3's code and reason.
func (a *answerError) Error() string {
	return fmt.Sprintf("%s: %s (%s, status %d, request id %q)", a.code, a.message, a.operation, a.status, a.requestID)
}

func (a *answerError) Unwrap() error { return a.err }

// translate puts a sentinel before an error of the S3 client where its meaning is known.
// The error itself stays in the chain.
func translate(err error) error {
	if unsigned(err) {
		return fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	a := answerOf(err)
	if a == nil {
		return err
	}
	if a.code != "" {
		err = a
	}
	if is := a.meaning(); is != nil {
		return fmt.Errorf("%w: %w", is, err)
	}
	return err
}

// unsigned reports whether a request was never sent because no credentials were to be
// had: the operation that failed inside the one that was asked for is that of another
// service.
func unsigned(err error) bool {
	var outer, inner *smithy.OperationError
	return errors.As(err, &outer) && errors.As(outer.Err, &inner) && inner.Service() != outer.Service()
}
