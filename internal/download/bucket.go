package download

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// BucketAPI is the part of the S3 client that a Bucket uses; [s3.Client] has it.
type BucketAPI interface {
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
	ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input, opts ...func(*s3.Options)) (*s3.ListObjectsV2Output,
		error)
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

// Head returns what the key holds now, with its version where the bucket has versions.
// What has no ETag is no object, and ErrNotS3.
//
// Errors are ErrGone, ErrNoBucket, ErrDenied, ErrCredentials, ErrNotS3, the cause of ctx,
// and whatever else the S3 client returned. The answer to a HEAD has no body, so it does
// not tell one kind of 400 or 403 from another; see [Scope].
func (b *Bucket) Head(ctx context.Context, key string) (Object, error) {
	out, err := b.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)})
	if err != nil {
		err = translate(err)
		if errors.Is(err, ErrGone) { // or the bucket is, which a HEAD cannot tell
			if probed := b.Probe(ctx); errors.Is(probed, ErrNoBucket) {
				return Object{}, probed
			}
		}
		return Object{}, err
	}
	from := sourceOf(out.ResultMetadata, out.ETag, out.ContentType)
	if from.etag == "" || !from.likely("") {
		return Object{}, fmt.Errorf("%w: a HEAD of %s without the ETag of an object", ErrNotS3, key)
	}
	return Object{
		Bucket: b.name, Key: key, VersionID: versionID(out.VersionId), ETag: from.etag,
		Size: aws.ToInt64(out.ContentLength),
	}, nil
}

// badToken is S3's code for a continuation token that is none of its own, or not of this
// bucket: all else that a listing asks for is right.
const badToken = "InvalidArgument"

// Page returns at most 1,000 objects, in the order of their keys, and the token of the
// page after them, "" after the last. The first page has the token "", which is never
// ErrToken. A listing knows no version ids (Amazon S3 API reference, "ListObjectsV2").
func (b *Bucket) Page(ctx context.Context, token string) (page []Object, next string, err error) {
	in := &s3.ListObjectsV2Input{Bucket: aws.String(b.name), Prefix: aws.String(b.prefix)}
	if token != "" {
		in.ContinuationToken = aws.String(token)
	}
	out, err := b.list(ctx, in)
	if a := answerOf(err); token != "" && a != nil && a.code == badToken {
		err = fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err != nil {
		return nil, "", err
	}
	for _, o := range out.Contents {
		page = append(page, Object{
			Bucket: b.name, Key: aws.ToString(o.Key), ETag: etag(o.ETag),
			Size: aws.ToInt64(o.Size),
		})
	}
	return page, aws.ToString(out.NextContinuationToken), nil
}

// Probe asks whether the bucket as such answers, by a listing of one key: nil if it does.
// It needs s3:ListBucket, as a backfill does, and tells nothing of the rights on objects
// or keys.
//
// Its error is that of the bucket, whose Scope is AllObjects, except for ErrDenied: then
// S3 answers and knows who asks, but where s3:ListBucket was never granted nothing else
// is known.
func (b *Bucket) Probe(ctx context.Context) error {
	_, err := b.list(ctx, &s3.ListObjectsV2Input{
		Bucket: aws.String(b.name), Prefix: aws.String(b.prefix),
		MaxKeys: aws.Int32(1),
	})
	return err
}

// list lists. A page of a proxy reads like a bucket that holds nothing, but for the
// bucket's name, which S3 repeats.
func (b *Bucket) list(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	out, err := b.api.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, translate(err)
	}
	id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	if id == "" && out.Name == nil && len(out.Contents) == 0 {
		return nil, fmt.Errorf("%w: a listing without the bucket's name", ErrNotS3)
	}
	return out, nil
}
