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
	// ErrKey is returned for a key refused by ValidateKey.
	ErrKey = errors.New("object key refused")
	// ErrGone is returned when the object, or its notified version, no longer exists.
	ErrGone = errors.New("object is gone")
	// ErrNoBucket is returned when the bucket does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrDenied is returned when S3 accepts the credentials and refuses access. It may
	// hide a missing object; see its text.
	ErrDenied = errors.New("access denied (S3 says so of a missing key, too, where s3:ListBucket is not granted)")
	// ErrCredentials is returned when S3 does not accept the credentials: there are none,
	// they are wrong or expired, or the clock is wrong.
	ErrCredentials = errors.New("credentials are not accepted")
	// ErrRefused is returned when S3 will never hand out this object to anyone as it is,
	// for example if it was stored with a customer's own key (SSE-C). Its text has S3's
	// code and reason.
	ErrRefused = errors.New("S3 refuses this object")
	// ErrArchived is returned for an object in an archive storage class: it must be
	// restored first.
	ErrArchived = errors.New("object is archived (restore it, then submit it again)")
	// ErrKMS is returned when the object's encryption key is disabled, about to be
	// deleted, or unusable for another reason.
	ErrKMS = errors.New("object's encryption key cannot be used")
	// ErrNotS3 is returned for an answer not known to be S3's, such as the page of a
	// proxy, a load balancer or a captive portal, or an answer altered by one of them. It
	// says nothing about any object.
	ErrNotS3 = errors.New("answer is not S3's but that of a proxy, a load balancer or another server")
	// ErrToken is returned when S3 no longer knows the token of a page of a listing.
	ErrToken = errors.New("listing cannot be continued")
	// ErrChanged is returned when the object is not the notified one: the key has been
	// overwritten since.
	ErrChanged = errors.New("object changed since it was notified")
	// ErrTooBig is returned when the object is larger than the limit.
	ErrTooBig = errors.New("object is too big")
	// ErrShort is returned when the connection ended before the object did. The next
	// attempt may bring all of it.
	ErrShort = errors.New("object body ended early")
	// ErrStalled is returned when no byte has come for too long. It wraps
	// context.DeadlineExceeded.
	ErrStalled = fmt.Errorf("download stalled: %w", context.DeadlineExceeded)
	// ErrMissing is returned when a blob's file does not exist.
	ErrMissing = errors.New("blob is missing")
	// ErrCorrupt is returned for wrong bytes: a checksum or a size differs.
	ErrCorrupt = errors.New("blob is corrupt")
)

// byCode has the sentinels for S3's error codes, as listed in the API reference under
// "Error responses". A code missing here means no more than its status: see Scope. Codes
// about credentials are known to awserr.
//
// A 400 is a final refusal only if it is about the way the object was stored.
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

	"InvalidRequest":  ErrRefused, // stored with a customer's key, missing in the request
	"KeyTooLongError": ErrRefused,
	"ResourceIsEncryptedWithCustomerEncryptionKey": ErrRefused, // Google's code for the same
}

// kmsPrefix begins the codes passed on by S3 from the key management service, such as
// KMS.DisabledException. A missing right on the key is AccessDenied.
const kmsPrefix = "KMS."

// byStatus has the sentinels for answers of S3 with an unknown code.
var byStatus = map[int]error{
	http.StatusPreconditionFailed: ErrChanged,
	http.StatusForbidden:          ErrDenied,
	http.StatusUnauthorized:       ErrCredentials,
}

// answerError is an error sent by S3, or by another server in its place.
type answerError struct {
	operation, code, message, requestID string
	status                              int
	err                                 error // as the client returned it
}

// answerOf returns the answer in an error of the client, nil if there was none. The
// client reports status 0 for a connection without an answer.
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

// hasCode reports whether the answer itself has a code of S3. If it has none, as with a
// HEAD or a proxy's page, the client derives code and message from the status.
func (a *answerError) hasCode() bool {
	text := http.StatusText(a.status)
	derived := a.code == strings.ReplaceAll(text, " ", "") && (a.message == "" || a.message == text)
	return a.code != "" && a.code != "UnknownError" && !derived
}

// notS3 reports whether nothing proves that the answer is S3's. "Unavailable" and "too
// busy" need no proof: they are not about an object.
func (a *answerError) notS3() bool {
	ill := a.status >= http.StatusInternalServerError || a.status == http.StatusTooManyRequests
	return !ill && !a.hasCode() && a.requestID == ""
}

// sentinel returns the sentinel for the answer, nil if there is none.
func (a *answerError) sentinel() error {
	switch {
	case a.notS3():
		return ErrNotS3
	case strings.HasPrefix(a.code, kmsPrefix):
		return ErrKMS
	case a.code == "NotFound" && !strings.HasPrefix(a.operation, "Head"):
		return nil // S3 would name the missing thing
	case awserr.IsCredentials(a.code):
		return ErrCredentials
	case byCode[a.code] != nil:
		return byCode[a.code]
	}
	return byStatus[a.status]
}

// Error begins with S3's code and reason: readers look for them.
func (a *answerError) Error() string { return awserr.Plain(a.err).Error() }

func (a *answerError) Unwrap() error { return a.err }

// translate wraps an error of the S3 client in a sentinel if its meaning is known. The
// error itself stays in the chain.
func translate(err error) error {
	if lacksCredentials(err) {
		return fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	a := answerOf(err)
	if a == nil {
		return awserr.Plain(err)
	}
	if a.code != "" {
		err = a
	}
	if is := a.sentinel(); is != nil {
		return fmt.Errorf("%w: %w", is, err)
	}
	return err
}

// lacksCredentials reports whether a request was never sent because there were no
// credentials: inside the requested operation one of another service has failed.
func lacksCredentials(err error) bool {
	var outer, inner *smithy.OperationError
	return errors.As(err, &outer) && errors.As(outer.Err, &inner) && inner.Service() != outer.Service()
}
