// Package awserr reads the errors of AWS clients: what went wrong with a call, and
// whether the same call may succeed later. It looks at types, error codes, statuses and
// errno, never at texts. What an error means for a message or an object is for others to
// say.
//
// Sources: Amazon SQS API reference, "Common Errors"; Amazon S3 API reference, "Error
// responses"; the SDK's list of throttling codes.
package awserr

import (
	"context"
	"errors"
	"net/http"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Class is what went wrong with a call to AWS. There are few, so they serve as a metric's
// label.
type Class string

// The classes.
const (
	Credentials Class = "credentials" // none, wrong or expired ones, or a wrong clock
	Denied      Class = "denied"      // policy, key policy
	NotFound    Class = "not_found"   // the queue, bucket or key does not exist
	Throttled   Class = "throttled"   // called too often, or too many messages in flight
	Server      Class = "server"      // 5xx
	Network     Class = "network"     // no answer: name, connection, TLS
	Timeout     Class = "timeout"     // no answer in time
	Other       Class = "other"
)

// Classes returns all of them.
func Classes() []Class {
	return []Class{Credentials, Denied, NotFound, Throttled, Server, Network, Timeout, Other}
}

// ErrNoCredentials is returned when there are no credentials to sign a request with. The
// wiring wraps errors of credential providers in it: their codes and statuses are those
// of a metadata or token service and say nothing about the queue or the bucket.
var ErrNoCredentials = errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the " +
	"machine a role")

// Classify returns the class of an error of the SQS or the S3 client. It returns Other
// for nil and for an error it does not know.
func Classify(err error) Class {
	if errors.Is(err, ErrNoCredentials) {
		return Credentials
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if class, known := byCode(shortCode(api.ErrorCode())); known {
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
	return unanswered(err)
}

// byStatus returns the class of a status that means the same with every code. The SDK
// reports status 0 for a connection without a response, and status 200 for a body it
// could not read.
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

// unanswered classifies an error that came without an answer from the service.
func unanswered(err error) Class {
	netErr, isNet := netError(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) || isNet && netErr.Timeout():
		return Timeout
	case errors.Is(err, context.Canceled):
		return Other
	case Disconnected(err):
		return Network
	}
	return Other
}

// Retryable reports whether the same call may succeed later without any change on our
// side. An error it does not know is retryable unless the service blames the request.
func Retryable(err error) bool {
	switch Classify(err) {
	case Throttled, Server, Network, Timeout:
		return true
	case Credentials, Denied, NotFound:
		return false
	}
	var api smithy.APIError
	return !errors.As(err, &api) || api.ErrorFault() != smithy.FaultClient
}
