package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Attributes are the settings and the approximate counts of the queue. What the queue
// does not tell is zero.
type Attributes struct {
	ARN  string
	FIFO bool

	Visible  int // messages that a receive could bring
	InFlight int // held by consumers; about 120,000 at most
	Delayed  int // not visible yet

	Visibility      time.Duration // for receives that do not ask for another
	Retention       time.Duration // after that the queue drops a message, read or not
	MaxMessageBytes int
	KMSKey          string // "" where the queue is not encrypted with a key of the customer

	DeadLetterARN   string // "" where there is no redrive policy
	MaxReceiveCount int    // of the redrive policy: one more receive moves a message to the dead-letter queue
}

// Attributes asks the queue for its settings and counts. Errors are those of the SQS
// client; see Classify.
func (c *Client) Attributes(ctx context.Context) (Attributes, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl:       aws.String(c.cfg.URL),
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	}, once)
	if err != nil {
		return Attributes{}, fmt.Errorf("queue attributes: %w", err)
	}
	return newAttributes(out.Attributes), nil
}

// newAttributes reads the attributes; SQS sends all of them as text.
func newAttributes(raw map[string]string) Attributes {
	number := func(name types.QueueAttributeName) int {
		n, err := strconv.Atoi(raw[string(name)])
		if err != nil {
			return 0
		}
		return n
	}
	duration := func(name types.QueueAttributeName) time.Duration { return time.Duration(number(name)) * time.Second }
	a := Attributes{
		ARN:             raw[string(types.QueueAttributeNameQueueArn)],
		FIFO:            raw[string(types.QueueAttributeNameFifoQueue)] == "true",
		Visible:         number(types.QueueAttributeNameApproximateNumberOfMessages),
		InFlight:        number(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Delayed:         number(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
		Visibility:      duration(types.QueueAttributeNameVisibilityTimeout),
		Retention:       duration(types.QueueAttributeNameMessageRetentionPeriod),
		MaxMessageBytes: number(types.QueueAttributeNameMaximumMessageSize),
		KMSKey:          raw[string(types.QueueAttributeNameKmsMasterKeyId)],
	}
	a.DeadLetterARN, a.MaxReceiveCount = redrive(raw[string(types.QueueAttributeNameRedrivePolicy)])
	return a
}

// redrive reads a redrive policy, whose count AWS has sent both as a number and as text.
func redrive(policy string) (arn string, maxReceives int) {
	var p struct {
		ARN string      `json:"deadLetterTargetArn"`
		Max json.Number `json:"maxReceiveCount"`
	}
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return "", 0
	}
	n, err := strconv.Atoi(p.Max.String())
	if err != nil {
		return p.ARN, 0
	}
	return p.ARN, n
}
