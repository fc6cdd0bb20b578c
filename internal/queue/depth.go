package queue

import (
	"context"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/awserr"
)

// Depth is how many messages a queue has, as SQS estimates it: the numbers lag behind by
// up to a minute (Amazon SQS API reference, "GetQueueAttributes").
type Depth struct {
	Visible  int // may be received
	InFlight int // held by consumers
	Delayed  int // sent with a delay that is not over
}

// Depth asks how many messages the queue has. Errors: those of the SQS client, see
// awserr.Classify.
func (c *Client) Depth(ctx context.Context) (Depth, error) { return c.depth(ctx, c.cfg.URL) }

// DeadLetterDepth asks how many messages the dead-letter queue has. Errors:
// ErrNoDeadLetter; those of Depth.
func (c *Client) DeadLetterDepth(ctx context.Context) (Depth, error) {
	if c.cfg.DeadLetterURL == "" {
		return Depth{}, ErrNoDeadLetter
	}
	return c.depth(ctx, c.cfg.DeadLetterURL)
}

func (c *Client) depth(ctx context.Context, url string) (Depth, error) {
	var d Depth
	numbers := map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Visible,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
	}
	in := &sqs.GetQueueAttributesInput{QueueUrl: aws.String(url)}
	for name := range numbers {
		in.AttributeNames = append(in.AttributeNames, name)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.GetQueueAttributes(ctx, in, noRetry)
	if err != nil {
		return Depth{}, fmt.Errorf("depth of %s: %w", url, awserr.Plain(err))
	}
	for name, n := range numbers {
		if *n, err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return Depth{}, fmt.Errorf("depth of %s: %s: %w", url, name, err)
		}
	}
	return d, nil
}
