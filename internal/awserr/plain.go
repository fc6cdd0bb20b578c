package awserr

import (
	"errors"
	"fmt"
	"net/url"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// plain is an error of an AWS client with a text for people.
type plain struct {
	text string
	err  error
}

func (p *plain) Error() string { return p.text }
func (p *plain) Unwrap() error { return p.err }

// Plain gives an error of an AWS client a text that begins with the service's code and
// reason, or with what became of the request, and has nothing of how the client is made.
// The chain stays. Other errors are returned as they are.
func Plain(err error) error {
	var op *smithy.OperationError
	if !errors.As(err, &op) {
		return err
	}
	var api smithy.APIError
	var unsent *url.Error
	switch {
	case errors.Is(err, ErrNoCredentials): // its own operation may be that of a token service
		return err
	case errors.As(op.Err, &api):
		return &plain{answer(op, api), err}
	case errors.As(op.Err, &unsent):
		return &plain{fmt.Sprintf("%s: %v", op.Operation(), unsent.Err), err}
	}
	return &plain{fmt.Sprintf("%s: %v", op.Operation(), op.Err), err}
}

// answer is the text of a service's answer. AWS's support asks for the request's id.
func answer(op *smithy.OperationError, api smithy.APIError) string {
	said := shortCode(api.ErrorCode())
	if message := api.ErrorMessage(); message != "" {
		said += ": " + message
	}
	said += " (" + op.Operation()
	var response *awshttp.ResponseError
	if errors.As(op.Err, &response) && response.Response != nil {
		said += fmt.Sprintf(", status %d", response.HTTPStatusCode())
		if id := response.RequestID; id != "" {
			said += fmt.Sprintf(", request id %q", id)
		}
	}
	return said + ")"
}
