package download

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// BucketAPI is the part of the S3 client used by a Bucket. [s3.Client] implements it.
type BucketAPI interface {
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
	ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input, opts ...func(*s3.Options)) (*s3.ListObjectsV2Output,
		error)
}

// Bucket reads a bucket under a prefix.
type Bucket struct {
	api          BucketAPI
	name, prefix string
}

// NewBucket returns the bucket of that name, seen through the prefix.
func NewBucket(api BucketAPI, name, prefix string) *Bucket {
	return &Bucket{api: api, name: name, prefix: prefix}
}

// Head returns the present object of the key, with its version if the bucket has
// versions. An answer without an ETag is not about an object: ErrNotS3.
//
// Errors are ErrGone, ErrNoBucket, ErrDenied, ErrCredentials, ErrNotS3, the cause of ctx,
// and other errors of the S3 client. The answer to a HEAD has no body, so it does not
// distinguish the kinds of 400 or 403; see [Scope].
func (b *Bucket) Head(ctx context.Context, key string) (Object, error) {
	out, err := b.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)})
	if err != nil {
		err = translate(err)
		if errors.Is(err, ErrGone) { // or the bucket is: a HEAD cannot tell
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

// badToken is S3's code for a continuation token of another origin or another bucket: the
// other parameters of a listing are valid.
const badToken = "InvalidArgument"

// Page returns at most 1,000 objects, in the order of their keys, and the token of the
// next page, "" after the last. The token "" asks for the first page; it never leads to
// ErrToken. A listing has no version ids (Amazon S3 API reference, "ListObjectsV2").
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

// Probe checks that the bucket itself answers, by a listing of one key. Like a backfill
// it needs s3:ListBucket. It does not check any right on objects or keys.
//
// The Scope of its error is AllObjects, except for ErrDenied: then S3 answers and accepts
// the credentials. If s3:ListBucket was never granted, nothing else is known.
func (b *Bucket) Probe(ctx context.Context) error {
	_, err := b.list(ctx, &s3.ListObjectsV2Input{
		Bucket: aws.String(b.name), Prefix: aws.String(b.prefix),
		MaxKeys: aws.Int32(1),
	})
	return err
}

// list makes one listing. A proxy's page reads like an empty bucket, but S3 repeats the
// bucket's name.
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
