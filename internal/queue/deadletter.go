package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/awserr"
)

// The message attributes added to a copy by DeadLetter.
const (
	AttributeReason   = "Reason"            // why the message was given up
	AttributeAttempts = "Attempts"          // how often it was tried; a number
	AttributeOriginal = "OriginalMessageId" // its id in the queue it came from
)

// maxReason is the limit of a reason in bytes: attributes count towards the size of a
// message.
const maxReason = 1024

// copyTries is how often a copy is tried. It is few: the message can be kept elsewhere,
// and its permit is held in the meantime.
const copyTries = 3

var (
	// ErrNotCopied is returned when a message could not be copied to the dead-letter
	// queue.
	ErrNotCopied = errors.New("not copied to the dead-letter queue")
	// ErrUnfit is returned when the dead-letter queue can never take a copy.
	ErrUnfit = errors.New("no copy can be sent to the dead-letter queue")
)

// DeadLetter copies the message to the dead-letter queue, with the reason and the number
// of attempts, and then deletes it. A failed copy is tried again a few times. If every
// try fails, nothing is deleted and the message is still held. If only the delete fails,
// a second DeadLetter of the same Message does not make another copy.
//
// Errors: ErrNoDeadLetter; ErrLeaseLost; ErrNotCopied, with the last error of the SQS
// client, or because the copy is too large with its attributes; those of Delete.
func (c *Client) DeadLetter(ctx context.Context, m *Message, reason string, attempts int) error {
	if c.cfg.DeadLetterURL == "" {
		return ErrNoDeadLetter
	}
	if m.lease == nil {
		return fmt.Errorf("dead-letter: %w: it was not received", ErrLeaseLost)
	}
	for try := 1; !m.copied; try++ {
		if cause := m.Cause(); cause != nil {
			return fmt.Errorf("dead-letter message %s: %w", m.ID, cause)
		}
		err := c.sendCopy(ctx, m, reason, attempts)
		switch {
		case err == nil:
			m.copied = true
		case try == copyTries || !awserr.Retryable(err) || ctx.Err() != nil:
			return fmt.Errorf("message %s: %w: %w", m.ID, ErrNotCopied, err)
		default:
			c.observeFailed("dead-letter", 1, err)
			waitUnlessLost(ctx, m, rand.N(firstPause<<try))
		}
	}
	return c.Delete(ctx, m)
}

// waitUnlessLost waits for d, or until the message is lost or ctx ends.
func waitUnlessLost(ctx context.Context, m *Message, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.Lost():
	case <-ctx.Done():
	}
}

// ProbeDeadLetter checks that the dead-letter queue exists. It returns nil if none is
// configured. It sends nothing, so it does not check the right to send a copy.
//
// Errors: ErrUnfit, when SQS itself says that the queue does not exist, or for a FIFO
// queue (those require a message group). Other errors are those of the SQS client and
// prove nothing: the right to look may be missing.
func (c *Client) ProbeDeadLetter(ctx context.Context) error {
	url := c.cfg.DeadLetterURL
	if url == "" {
		return nil
	}
	if strings.HasSuffix(url, ".fifo") {
		return fmt.Errorf("%w: it is a FIFO queue: %s", ErrUnfit, url)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	_, err := c.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(url), AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	}, noRetry)
	switch {
	case err == nil:
		return nil
	case awserr.NamesMissing(err):
		return fmt.Errorf("%w: %s: %w", ErrUnfit, url, awserr.Plain(err))
	}
	return fmt.Errorf("dead-letter queue %s: %w", url, awserr.Plain(err))
}

// sendCopy sends the message to the dead-letter queue, as part of the sender's trace.
func (c *Client) sendCopy(ctx context.Context, m *Message, reason string, attempts int) error {
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
	}
	in := &sqs.SendMessageInput{
		QueueUrl:    aws.String(c.cfg.DeadLetterURL),
		MessageBody: aws.String(m.Body),
		MessageAttributes: map[string]types.MessageAttributeValue{
			AttributeReason:   text(attributeText(reason)),
			AttributeAttempts: {DataType: aws.String("Number"), StringValue: aws.String(strconv.Itoa(attempts))},
			AttributeOriginal: text(attributeText(m.ID)),
		},
	}
	if m.TraceHeader != "" {
		in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{
			string(types.MessageSystemAttributeNameForSendsAWSTraceHeader): {
				DataType:    aws.String("String"),
				StringValue: aws.String(m.TraceHeader),
			},
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	_, err := c.api.SendMessage(ctx, in, noRetry)
	return awserr.Plain(err)
}

// attributeText makes a text fit for an attribute: SQS accepts only the characters of XML
// 1.0, and no empty value. Reasons may quote an attacker's text.
func attributeText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == '\uFFFE' || r == '\uFFFF' {
			return '\uFFFD'
		}
		return r
	}, s)
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	if s == "" {
		return "unknown"
	}
	return s
}
