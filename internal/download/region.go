package download

import (
	"context"
	"errors"
	"sync/atomic"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// regionHeader has the region of the bucket. S3 sends it even with a refusal from another
// region (Amazon S3 API reference, "HeadBucket").
const regionHeader = "X-Amz-Bucket-Region"

// Regional is an S3 client for one bucket, possibly in another region than the client's.
// The first answer from the wrong region names the right one; Regional then repeats the
// request there. It implements API and BucketAPI.
type Regional struct {
	client *s3.Client
	region atomic.Pointer[string] // nil: the client's own
}

// NewRegional wraps a client.
func NewRegional(client *s3.Client) *Regional { return &Regional{client: client} }

// GetObject implements API.
func (r *Regional) GetObject(ctx context.Context, in *s3.GetObjectInput,
	opts ...func(*s3.Options),
) (*s3.GetObjectOutput, error) {
	return inRegion(ctx, r, r.client.GetObject, in, opts)
}

// HeadObject implements API and BucketAPI.
func (r *Regional) HeadObject(ctx context.Context, in *s3.HeadObjectInput,
	opts ...func(*s3.Options),
) (*s3.HeadObjectOutput, error) {
	return inRegion(ctx, r, r.client.HeadObject, in, opts)
}

// ListObjectsV2 implements BucketAPI.
func (r *Regional) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input,
	opts ...func(*s3.Options),
) (*s3.ListObjectsV2Output, error) {
	return inRegion(ctx, r, r.client.ListObjectsV2, in, opts)
}

// inRegion makes a call, and repeats it in the bucket's region if the answer names
// another.
func inRegion[In, Out any](ctx context.Context, r *Regional,
	call func(context.Context, In, ...func(*s3.Options)) (Out, error), in In, opts []func(*s3.Options),
) (Out, error) {
	known := r.region.Load()
	out, err := call(ctx, in, append(opts, withRegion(known))...)
	there := regionOf(err)
	if there == "" || known != nil && *known == there {
		return out, err
	}
	r.region.Store(&there)
	return call(ctx, in, append(opts, withRegion(&there))...)
}

func withRegion(region *string) func(*s3.Options) {
	return func(o *s3.Options) {
		if region != nil {
			o.Region = *region
		}
	}
}

// regionOf returns the region named by the answer in an error, "" if there is none.
func regionOf(err error) string {
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil {
		return ""
	}
	return response.Response.Header.Get(regionHeader)
}
