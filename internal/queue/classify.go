package queue

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Class is what went wrong with a call to AWS: one of a few words, fit for a metric's
// label.
type Class string

// The classes.
const (
	Denied    Class = "denied"    // credentials, signature, policy, key policy
	NotFound  Class = "not_found" // no such queue, bucket or key
	Throttled Class = "throttled" // called too often, or too many messages in flight
	Server    Class = "server"    // 5xx
	Network   Class = "network"   // no answer: name, connection, TLS
	Timeout   Class = "timeout"   // no answer in time
	Other     Class = "other"
)

// Classes returns all of them.
func Classes() []Class { return []Class{Denied, NotFound, Throttled, Server, Network, Timeout, Other} }

// byCode has the error codes whose status says less than their name: SQS answers 400 to
// nearly everything. The throttling codes of AWS in general are the SDK's to know.
var byCode = map[string]Class{
	"AccessDenied":                Denied,
	"AccessDeniedException":       Denied,
	"ExpiredToken":                Denied,
	"ExpiredTokenException":       Denied,
	"IncompleteSignature":         Denied,
	"InvalidAccessKeyId":          Denied,
	"InvalidClientTokenId":        Denied,
	"InvalidSecurity":             Denied,
	"KmsAccessDenied":             Denied,
	"KmsDisabled":                 Denied,
	"KmsOptInRequired":            Denied,
	"MissingAuthenticationToken":  Denied,
	"OptInRequired":               Denied,
	"SignatureDoesNotMatch":       Denied,
	"UnrecognizedClientException": Denied,

	"NoSuchBucket":              NotFound,
	"NoSuchKey":                 NotFound,
	"NoSuchVersion":             NotFound,
	"NonExistentQueue":          NotFound,
	"QueueDoesNotExist":         NotFound,
	"ResourceNotFoundException": NotFound,

	"KmsThrottled": Throttled,
	"OverLimit":    Throttled,
}

// ErrNoCredentials says that there were none to sign a request with. The wiring puts it
// before the errors of where credentials come from, whose own codes and statuses say
// nothing of the queue or the bucket.
var ErrNoCredentials = errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the " +
	"machine a role")

// Classify puts an error of the SQS or the S3 client into its class, by types, codes and
// errno. It answers Other for nil and for whatever it does not know.
func Classify(err error) Class {
	if errors.Is(err, ErrNoCredentials) {
		return Denied
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if class, known := byName(shortCode(api.ErrorCode())); known {
			return class
		}
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		if class, known := byStatus(response.HTTPStatusCode()); known {
			return class
		}
	}
	if api != nil && api.ErrorFault() == smithy.FaultServer {
		return Server
	}
	return transport(err)
}

func byName(code string) (Class, bool) {
	if _, known := retry.DefaultThrottleErrorCodes[code]; known {
		return Throttled, true
	}
	class, known := byCode[code]
	return class, known
}

// byStatus knows the statuses that mean the same whatever the code. The SDK makes a
// response, of status 0, of a connection that brought none, and one of status 200 of a
// body that could not be read.
func byStatus(status int) (Class, bool) {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return Denied, true
	case status == http.StatusNotFound:
		return NotFound, true
	case status == http.StatusTooManyRequests:
		return Throttled, true
	case status >= http.StatusInternalServerError:
		return Server, true
	}
	return Other, false
}

// broken are the ways in which a connection ends without an answer, or does not begin. An
// errno that is none of these is the machine's trouble, not the network's.
var broken = []error{
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	syscall.ENETDOWN, syscall.ENETRESET, syscall.ENETUNREACH, syscall.EPIPE,
}

// transport classifies what happened without an answer from the service.
func transport(err error) Class {
	var netErr net.Error
	isNet := errors.As(err, &netErr)
	if _, bare := netErr.(syscall.Errno); bare { // each errno has the methods of a net.Error
		isNet = false
	}
	var sending interface{ ConnectionError() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) || isNet && netErr.Timeout():
		return Timeout
	case errors.Is(err, context.Canceled):
		return Other
	case isNet || errors.As(err, &sending) && sending.ConnectionError():
		return Network
	case slices.ContainsFunc(broken, func(is error) bool { return errors.Is(err, is) }):
		return Network
	}
	return Other
}

// shortCode takes the prefixes off an error code: SQS says
// "AWS.SimpleQueueService.NonExistentQueue" in its query form and
// "com.amazonaws.sqs#QueueDoesNotExist" in JSON.
func shortCode(code string) string {
	return code[strings.LastIndexAny(code, ".#")+1:]
}
