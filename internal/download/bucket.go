package download

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// BucketAPI is the part of the S3 client that a Bucket uses; [s3.Client] has it.
type BucketAPI interface {
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
	ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input, opts ...func(*s3.Options)) (*s3.ListObjectsV2Output, error)
}

// Bucket says what a bucket holds under a prefix.
type Bucket struct {
	api          BucketAPI
	name, prefix string
}

// NewBucket returns the bucket of that name, seen through the prefix.
func NewBucket(api BucketAPI, name, prefix string) *Bucket {
	return &Bucket{api: api, name: name, prefix: prefix}
}

// Head returns what the key holds now, with its version where the bucket has versions. Errors are ErrGone, ErrDenied, the cause of
// ctx, and whatever else the S3 client returned.
func (b *Bucket) Head(ctx context.Context, key string) (Object, error) {
	out, err := b.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)})
	if err != nil {
		return Object{}, translate(err)
	}
	return Object{
		Bucket: b.name, Key: key, VersionID: aws.ToString(out.VersionId), ETag: etag(out.ETag), Size: aws.ToInt64(out.ContentLength),
	}, nil
}

// Page returns at most 1,000 objects, in the order of their keys, and the token of the page after them, "" after the last. The first
// page has the token "". A listing knows no version ids (Amazon S3 API reference, "ListObjectsV2").
func (b *Bucket) Page(ctx context.Context, token string) (page []Object, next string, err error) {
	in := &s3.ListObjectsV2Input{Bucket: aws.String(b.name), Prefix: aws.String(b.prefix)}
	if token != "" {
		in.ContinuationToken = aws.String(token)
	}
	out, err := b.api.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, "", translate(err)
	}
	for _, o := range out.Contents {
		page = append(page, Object{Bucket: b.name, Key: aws.ToString(o.Key), ETag: etag(o.ETag), Size: aws.ToInt64(o.Size)})
	}
	return page, aws.ToString(out.NextContinuationToken), nil
}
