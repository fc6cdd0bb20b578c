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

// The message attributes that DeadLetter adds to a copy.
const (
	AttributeReason   = "Reason"            // why the message was given up
	AttributeAttempts = "Attempts"          // how often it was tried; a number
	AttributeOriginal = "OriginalMessageId" // its id in the queue that it came from
)

// maxReason is how many bytes of a reason are kept: attributes count towards the size of
// a message.
const maxReason = 1024

// copyTries is how often a copy is tried: it is not the only place where a message can be
// kept, and its permit is held meanwhile.
const copyTries = 3

var (
	// ErrNotCopied says that a message could not be copied to the dead-letter queue.
	ErrNotCopied = errors.New("not copied to the dead-letter queue")
	// ErrUnfit says that the dead-letter queue can never take a copy.
	ErrUnfit = errors.New("no copy can be sent to the dead-letter queue")
)

// DeadLetter copies the message to the dead-letter queue, with why it was given up and
// after how many attempts, and then deletes it. A copy that fails is tried again a few
// times; when all failed nothing is deleted and the message is still held. When the
// delete fails the copy is there already; a second DeadLetter of the same Message does
// not make another.
//
// Errors: ErrNoDeadLetter; ErrLost; ErrNotCopied, with the last error of the SQS client,
// or because the copy is too large with its attributes; those of Delete.
func (c *Client) DeadLetter(ctx context.Context, m *Message, reason string, attempts int) error {
	if c.cfg.DeadLetterURL == "" {
		return ErrNoDeadLetter
	}
	if m.lease == nil {
		return fmt.Errorf("dead-letter: %w: it was not received", ErrLost)
	}
	for try := 1; !m.copied; try++ {
		if cause := m.Cause(); cause != nil {
			return fmt.Errorf("dead-letter message %s: %w", m.ID, cause)
		}
		err := c.copy(ctx, m, reason, attempts)
		switch {
		case err == nil:
			m.copied = true
		case try == copyTries || !awserr.Retryable(err) || ctx.Err() != nil:
			return fmt.Errorf("message %s: %w: %w", m.ID, ErrNotCopied, err)
		default:
			c.observeFailed("dead-letter", 1, err)
			pause(ctx, m, rand.N(firstPause<<try))
		}
	}
	return c.Delete(ctx, m)
}

// pause waits for so long, or until the message is lost or ctx ends.
func pause(ctx context.Context, m *Message, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.Lost():
	case <-ctx.Done():
	}
}

// ProbeDeadLetter looks whether the dead-letter queue is there; nil where none is
// configured. It sends nothing: whether a copy may be sent only a copy can tell.
//
// Errors: ErrUnfit, when SQS itself says that there is no such queue, or for a FIFO
// queue, which takes no message without a group; others are those of the SQS client and
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
	}, once)
	switch {
	case err == nil:
		return nil
	case awserr.NamesMissing(err):
		return fmt.Errorf("%w: %s: %w", ErrUnfit, url, err)
	}
	return fmt.Errorf("dead-letter queue %s: %w", url, err)
}

// copy sends the message to the dead-letter queue, as part of the sender's trace.
func (c *Client) copy(ctx context.Context, m *Message, reason string, attempts int) error {
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
	}
	in := &sqs.SendMessageInput{
		QueueUrl:    aws.String(c.cfg.DeadLetterURL),
		MessageBody: aws.String(m.Body),
		MessageAttributes: map[string]types.MessageAttributeValue{
			AttributeReason:   text(plain(reason)),
			AttributeAttempts: {DataType: aws.String("Number"), StringValue: aws.String(strconv.Itoa(attempts))},
			AttributeOriginal: text(plain(m.ID)),
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
	_, err := c.api.SendMessage(ctx, in, once)
	return err
}

// plain makes a text fit for an attribute: SQS takes the characters of XML 1.0 only, and
// no empty value. Reasons may quote what an attacker wrote.
func plain(s string) string {
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
