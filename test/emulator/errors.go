package emulator

import (
	"fmt"
	"net/http"
)

// apiError is an error of the service that the caller sees: a code of the API reference,
// its HTTP status and a text.
type apiError struct {
	code    string // the name in S3, and that of the shape in SQS
	status  int
	message string
	header  http.Header // further headers of the answer; may be nil
}

// Error is the code and the text.
func (e *apiError) Error() string { return e.code + ": " + e.message }

// with returns the error with another text.
func (e *apiError) with(format string, args ...any) *apiError {
	c := *e
	c.message = fmt.Sprintf(format, args...)
	return &c
}

// withHeader returns the error with one more header in its answer.
func (e *apiError) withHeader(key, value string) *apiError {
	c := *e
	c.header = e.header.Clone()
	if c.header == nil {
		c.header = http.Header{}
	}
	c.header.Set(key, value)
	return &c
}
