package doctor

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/awserr"
)

// attributes are those of a queue (Amazon SQS API reference, "GetQueueAttributes"). Nil
// if the queue could not be looked at.
type attributes map[string]string

func (a attributes) arn() string { return a[string(types.QueueAttributeNameQueueArn)] }

// seconds returns an attribute that is a number of seconds.
func (a attributes) seconds(name types.QueueAttributeName) time.Duration {
	n, _ := strconv.Atoi(a[string(name)]) // SQS has checked it
	return time.Duration(n) * time.Second
}

func (c *Cloud) attributes(ctx context.Context, url string) (attributes, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.SQS.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(url), AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// queue looks at the queue and its dead-letter queue.
func (c *Cloud) queue(ctx context.Context) ([]Finding, attributes) {
	const check = "queue"
	a, err := c.attributes(ctx, c.QueueURL)
	switch {
	case awserr.NamesMissing(err):
		missing := fail(check, "correct SQS_QUEUE_URL or AWS_REGION; `aws sqs list-queues` lists those there are",
			"there is no queue %s", c.QueueURL)
		return append([]Finding{missing}, skipped("there is no queue", attributeChecks...)...), nil
	case err != nil:
		refused := refusal(check, Warn, "sqs:GetQueueAttributes", c.QueueURL, err)
		return append([]Finding{refused}, skipped("the queue's attributes cannot be read", attributeChecks...)...), nil
	case isFIFO(a):
		return []Finding{fail(check, "make a standard queue: S3 cannot notify a FIFO queue",
			"%s is a FIFO queue", c.QueueURL)}, a
	}
	return []Finding{
		ok(check, "%s, a standard queue", c.QueueURL), c.visibility(a), retention(a), key(a), c.redrive(ctx, a),
		c.deadLetterQueue(ctx, a),
	}, a
}

func isFIFO(a attributes) bool {
	return a[string(types.QueueAttributeNameFifoQueue)] == "true" || strings.HasSuffix(a.arn(), ".fifo")
}

// visibility shows what the daemon asks for with every receive. The queue's own time-out
// is for programs that do not.
func (c *Cloud) visibility(a attributes) Finding {
	return ok("queue-visibility", "the daemon holds messages for %s at a time (SQS_VISIBILITY); the queue's own %s "+
		"is for other programs", c.Visibility, a.seconds(types.QueueAttributeNameVisibilityTimeout))
}

func retention(a attributes) Finding {
	const check = "queue-retention"
	kept := a.seconds(types.QueueAttributeNameMessageRetentionPeriod)
	if kept < 24*time.Hour {
		return warn(check, "aws sqs set-queue-attributes --queue-url URL --attributes MessageRetentionPeriod=345600",
			"messages are kept for %s: what is uploaded while the daemon is away for longer is lost", kept)
	}
	return ok(check, "messages are kept for %.4g days", kept.Hours()/24)
}

// key looks at the queue's encryption. Its key's policy cannot be seen (Amazon SQS
// developer guide, "Configuring KMS permissions for AWS services").
func key(a attributes) Finding {
	const check = "queue-key"
	switch id := a[string(types.QueueAttributeNameKmsMasterKeyId)]; {
	case id == "":
		return ok(check, "the queue has no KMS key")
	case strings.HasSuffix(id, "alias/aws/sqs"):
		return fail(check, "encrypt the queue with a KMS key of your own that s3.amazonaws.com may use, or by SSE-SQS",
			"the queue has the KMS key alias/aws/sqs, which S3 may not use: no notification arrives")
	default:
		return warn(check,
			"let its policy allow s3.amazonaws.com kms:GenerateDataKey and kms:Decrypt, and the daemon's "+
				"role kms:Decrypt and kms:GenerateDataKey",
			"the queue has the KMS key %s; its policy is not seen from here", id)
	}
}

// redrivePolicy is an attribute. SQS takes the number as a string, too.
type redrivePolicy struct {
	Target   string      `json:"deadLetterTargetArn"`
	Receives json.Number `json:"maxReceiveCount"`
}

func (a attributes) redrive() (p redrivePolicy, has bool) {
	err := json.Unmarshal([]byte(a[string(types.QueueAttributeNameRedrivePolicy)]), &p)
	return p, err == nil && p.Target != ""
}

// redrive holds SQS's own count to the daemon's: messages that are handed back untouched
// count as received, too.
func (c *Cloud) redrive(ctx context.Context, a attributes) Finding {
	const check = "redrive"
	p, has := a.redrive()
	receives, _ := p.Receives.Int64()
	switch least := int64(2 * c.MaxAttempts); {
	case !has:
		return warn(check, "localstack/setup.sh makes one, or `aws sqs set-queue-attributes` with RedrivePolicy and a "+
			"maxReceiveCount of 100",
			"the queue has no redrive policy: a message that no program can take comes again "+
				"until it is too old")
	case p.Target == a.arn():
		return fail(check, "name another queue in its redrive policy", "the queue is its own dead-letter queue")
	case receives < least:
		return warn(check, "raise maxReceiveCount in its redrive policy to 100", "SQS gives a message up after %d "+
			"receives, before the daemon has made its %d attempts (MAX_ATTEMPTS)", receives, c.MaxAttempts)
	}
	return c.redriveTarget(ctx, p, receives)
}

// redriveTarget looks for the queue that SQS moves messages to.
func (c *Cloud) redriveTarget(ctx context.Context, p redrivePolicy, receives int64) Finding {
	const check = "redrive"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	parts := strings.Split(p.Target, ":") // arn:aws:sqs:region:account:name
	name, account := parts[len(parts)-1], parts[max(0, len(parts)-2)]
	_, err := c.SQS.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{
		QueueName: aws.String(name), QueueOwnerAWSAccountId: aws.String(account),
	})
	switch {
	case awserr.NamesMissing(err):
		return fail(check, "make that queue, or name another one in the redrive policy",
			"the queue's redrive policy names %s, which does not exist", p.Target)
	case err != nil:
		return refusal(check, Warn, "sqs:GetQueueUrl", p.Target, err)
	}
	return ok(check, "after %d receives to %s", receives, name)
}

// deadLetterQueue looks at the daemon's own one.
func (c *Cloud) deadLetterQueue(ctx context.Context, main attributes) Finding {
	const check, remedy = "dead-letter-queue", "name another queue as SQS_DEAD_LETTER_URL, or none"
	if c.DeadLetterURL == "" {
		return ok(check, "none (SQS_DEAD_LETTER_URL): what failed for good is kept in quarantine")
	}
	a, err := c.attributes(ctx, c.DeadLetterURL)
	kept := a.seconds(types.QueueAttributeNameMessageRetentionPeriod)
	switch {
	case awserr.NamesMissing(err):
		return fail(check, remedy, "there is no queue %s", c.DeadLetterURL)
	case err != nil:
		return refusal(check, Warn, "sqs:GetQueueAttributes", c.DeadLetterURL, err)
	case a.arn() == main.arn():
		return fail(check, remedy, "it is the queue itself: what failed for good would come again")
	case isFIFO(a):
		return fail(check, remedy, "%s is a FIFO queue", c.DeadLetterURL)
	case kept < main.seconds(types.QueueAttributeNameMessageRetentionPeriod):
		return warn(check, "aws sqs set-queue-attributes --queue-url "+c.DeadLetterURL+
			" --attributes MessageRetentionPeriod=1209600", "it keeps messages for %s only, less than the queue", kept)
	}
	return ok(check, "%s", c.DeadLetterURL)
}
