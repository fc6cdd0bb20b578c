package doctor

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/internal/awserr"
)

// callTimeout bounds each call to AWS, the SDK's retries included.
const callTimeout = 10 * time.Second

// S3 is the part of the S3 client in use. [s3.Client] implements it.
type S3 interface {
	HeadBucket(context.Context, *s3.HeadBucketInput, ...func(*s3.Options)) (*s3.HeadBucketOutput, error)
	GetBucketNotificationConfiguration(context.Context, *s3.GetBucketNotificationConfigurationInput,
		...func(*s3.Options)) (*s3.GetBucketNotificationConfigurationOutput, error)
	ListObjectsV2(context.Context, *s3.ListObjectsV2Input, ...func(*s3.Options)) (*s3.ListObjectsV2Output, error)
	HeadObject(context.Context, *s3.HeadObjectInput, ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
	GetObject(context.Context, *s3.GetObjectInput, ...func(*s3.Options)) (*s3.GetObjectOutput, error)
}

// SQS is the part of the SQS client in use. [sqs.Client] implements it.
type SQS interface {
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput,
		...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
	GetQueueUrl(context.Context, *sqs.GetQueueUrlInput, ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error)
}

// Cloud looks at bucket and queue, with the rights of the credentials.
type Cloud struct {
	S3          S3
	SQS         SQS
	Credentials aws.CredentialsProvider
	Clock       *Clock // must be among the options of both clients

	Bucket, Prefix          string
	QueueURL, DeadLetterURL string // DeadLetterURL may be empty
	Region                  string // of the requests
	Visibility              time.Duration
	MaxAttempts             int
}

// The names of the checks that others have to wait for, and of those.
var (
	attributeChecks = []string{"queue-visibility", "queue-retention", "queue-key", "redrive", "dead-letter-queue"}
	bucketChecks    = []string{"notification", "queue-policy", "sample-read"}
	callChecks      = slices.Concat([]string{"queue"}, attributeChecks, []string{"bucket"}, bucketChecks,
		[]string{"clock"})
)

// NoCloud returns a warning for each check of a Cloud that cannot be made.
func NoCloud(why string) []Finding {
	return skipped(why, append([]string{"credentials", "region"}, callChecks...)...)
}

// Check makes all checks. It reads attributes, a listing of some keys, and one byte.
func (c *Cloud) Check(ctx context.Context) []Finding {
	found := []Finding{c.credentials(ctx), ok("region", "%s", c.Region)}
	if found[0].Result == Fail {
		return append(found, skipped("there are no credentials", callChecks...)...)
	}
	about, queue := c.queue(ctx)
	bucket := c.bucket(ctx)
	found = append(append(found, about...), bucket)
	if bucket.Result == Fail {
		found = append(found, skipped("the bucket does not answer", bucketChecks...)...)
	} else {
		notification, direct := c.notification(ctx, queue.arn())
		found = append(found, notification, c.policy(queue, direct), c.sample(ctx))
	}
	return append(found, c.Clock.check())
}

// credentials looks where they come from. No call is made with them.
func (c *Cloud) credentials(ctx context.Context) Finding {
	const check = "credentials"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	keys, err := c.Credentials.Retrieve(ctx)
	if code := awserr.Code(err); code != "" {
		return fail(check, "correct the role: its name, who may take it, its token",
			"there are none: the answer for the "+
				"role is %s", code)
	}
	if err != nil {
		return fail(check, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
			"there are none, neither in the environment nor in files nor of a role")
	}
	if keys.CanExpire {
		return ok(check, "%s from %s, until %s", keys.AccessKeyID, keys.Source, keys.Expires.UTC().Format(time.RFC3339))
	}
	return ok(check, "%s from %s", keys.AccessKeyID, keys.Source)
}
