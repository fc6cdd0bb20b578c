// Package plainbody makes an HTTP client safe for the AWS SDK's request bodies.
//
// The SDK closes a request's body as soon as the header of the answer is there. WriteTo
// on the closed body answers io.EOF; net/http takes that for a failed write, and closes
// the connection while the answer is being read ("use of closed network connection"). It
// needs an endpoint faster than the client's own goroutine, such as one on this machine.
// The messages of such a poll are hidden until their time-out. Read on a closed body does
// no harm. Seen with smithy-go 1.28.9; see aws/aws-sdk-go-v2 issue 2737.
package plainbody

import (
	"io"
	"net/http"
)

// Doer makes requests, as aws.HTTPClient and http.Client do.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Client shows the client it wraps nothing of a request's body but Read and Close.
type Client struct{ Doer }

// Do makes the request.
func (c Client) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context()) // a copy
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.Doer.Do(r)
}
