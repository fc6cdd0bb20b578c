package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"imagemanager.internal/internal/awserr"
)

// bucket asks for the bucket and its region. S3 notifies queues of the same region alone
// (Amazon S3 user guide, "Amazon S3 Event Notifications").
func (c *Cloud) bucket(ctx context.Context) Finding {
	const check = "bucket"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.S3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(c.Bucket)})
	region := regionOf(out, err)
	switch {
	case region != "" && region != c.Region:
		return fail(check, "take a bucket and a queue of one region, and leave AWS_REGION out or set it to that one",
			"%s is in %s, and the queue in %s: S3 does not notify queues of another region", c.Bucket, region, c.Region)
	case awserr.Classify(err) == awserr.NotFound:
		return fail(check, "correct S3_BUCKET; `aws s3 ls` lists yours", "there is no bucket %s", c.Bucket)
	case awserr.Classify(err) == awserr.Denied:
		return warn(check, fmt.Sprintf("is S3_BUCKET right? If so, allow s3:ListBucket on arn:aws:s3:::%s", c.Bucket),
			"%s does not let itself be looked at: %s", c.Bucket, why(err))
	case err != nil:
		return refusal(check, Fail, "s3:ListBucket", "arn:aws:s3:::"+c.Bucket, err)
	}
	return ok(check, "%s", c.Bucket)
}

// regionOf returns the region in an answer, "" if it has none. Refusals from another
// region have one, too (Amazon S3 API reference, "HeadBucket").
func regionOf(out *s3.HeadBucketOutput, err error) string {
	if err == nil {
		return aws.ToString(out.BucketRegion)
	}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// sample reads one byte of one object, as the daemon reads all.
func (c *Cloud) sample(ctx context.Context) Finding {
	const check = "sample-read"
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	objects := fmt.Sprintf("arn:aws:s3:::%s/%s*", c.Bucket, c.Prefix)
	list, err := c.S3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: aws.String(c.Bucket), Prefix: aws.String(c.Prefix), MaxKeys: aws.Int32(100),
	})
	if err != nil {
		return refusal(check, Warn, "s3:ListBucket", "arn:aws:s3:::"+c.Bucket, err)
	}
	name := firstWithBytes(list.Contents)
	if name == nil {
		return warn(check, "upload an image, and look again", "nothing was read: there is no object under %q yet",
			c.Prefix)
	}
	head, err := c.S3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(c.Bucket), Key: name})
	if err != nil {
		return refusal(check, Fail, "s3:GetObject", objects, err)
	}
	if err := c.readByte(ctx, name); err != nil {
		f := refusal(check, Fail, "s3:GetObject", objects, err)
		if key := aws.ToString(head.SSEKMSKeyId); key != "" {
			f.Remedy += ", and kms:Decrypt on " + key
		}
		return f
	}
	return ok(check, "%q was listed and read", *name)
}

func firstWithBytes(list []types.Object) *string {
	for _, o := range list {
		if aws.ToInt64(o.Size) > 0 {
			return o.Key
		}
	}
	return nil
}

func (c *Cloud) readByte(ctx context.Context, name *string) error {
	out, err := c.S3.GetObject(ctx, &s3.GetObjectInput{
		Bucket: aws.String(c.Bucket), Key: name, Range: aws.String("bytes=0-0"),
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, out.Body)
	return errors.Join(err, out.Body.Close())
}
