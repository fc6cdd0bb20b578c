package download

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Observer is told what happens, for metrics. A function may be nil. It may be called by
// several goroutines at once.
type Observer struct {
	Requested func(err error)   // a GET or HEAD was answered, or failed
	Received  func(bytes int)   // bytes of a body came
	Resumed   func(bytes int64) // a download goes on behind so many bytes of an earlier one
	Stalled   func()            // a download was ended by ErrStalled
}

// observedAPI reports every request.
type observedAPI struct {
	API
	observer Observer
}

// GetObject implements API.
func (a observedAPI) GetObject(ctx context.Context, in *s3.GetObjectInput, opts ...func(*s3.Options)) (
	*s3.GetObjectOutput, error,
) {
	out, err := a.API.GetObject(ctx, in, opts...)
	a.observer.requested(err)
	return out, err
}

// HeadObject implements API.
func (a observedAPI) HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (
	*s3.HeadObjectOutput, error,
) {
	out, err := a.API.HeadObject(ctx, in, opts...)
	a.observer.requested(err)
	return out, err
}

func (o Observer) requested(err error) {
	if o.Requested != nil {
		o.Requested(err)
	}
}

func (o Observer) received(bytes int) {
	if o.Received != nil && bytes > 0 {
		o.Received(bytes)
	}
}

func (o Observer) resumed(bytes int64) {
	if o.Resumed != nil && bytes > 0 {
		o.Resumed(bytes)
	}
}

// ended reports how a download ended.
func (o Observer) ended(err error) {
	if o.Stalled != nil && errors.Is(err, ErrStalled) {
		o.Stalled()
	}
}
