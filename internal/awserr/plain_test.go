package awserr

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// People read what happened, in the service's words, and nothing of the client's.
func TestPlain(t *testing.T) {
	answered := func(code, message string) error {
		return &awshttp.ResponseError{RequestID: "R1", ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusNotFound}},
			Err:      &smithy.GenericAPIError{Code: code, Message: message},
		}}
	}
	refused := &url.Error{Op: "Head", URL: "http://h", Err: &net.OpError{
		Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, Err: errors.New("refused"),
	}}
	unsent := &smithyhttp.RequestSendError{Err: refused}
	const nonExistent = "AWS.SimpleQueueService.NonExistentQueue"
	for want, err := range map[string]error{
		`NotFound (Head, status 404, request id "R1")`:               answered("NotFound", ""),
		`NonExistentQueue: none (Head, status 404, request id "R1")`: answered(nonExistent, "none"),
		`Head: dial tcp 127.0.0.1:1: refused`:                        fmt.Errorf("exceeded: %w", unsent),
		`Head: something else`:                                       errors.New("something else"),
	} {
		whole := &smithy.OperationError{ServiceID: "S3", OperationName: "Head", Err: err}
		got := Plain(whole)
		if got.Error() != want || !errors.Is(got, error(whole)) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, other := range []error{nil, errors.New("x"), fmt.Errorf("%w: x", ErrNoCredentials)} {
		if got := Plain(other); !errors.Is(got, other) {
			t.Errorf("%v became %v", other, got)
		}
	}
}
