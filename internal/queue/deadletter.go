package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// The message attributes that DeadLetter adds to a copy.
const (
	AttributeReason   = "Reason"            // why the message was given up
	AttributeAttempts = "Attempts"          // how often it was tried; a number
	AttributeOriginal = "OriginalMessageId" // its id in the queue that it came from
)

// maxReason is how many bytes of a reason are kept: attributes count towards the size of a message.
const maxReason = 1024

// DeadLetter copies the message to the dead-letter queue, with why it was given up and after how many attempts, and then deletes it.
// When the copy fails nothing is deleted and the message is still held. When the delete fails the copy is there already; a second
// DeadLetter of the same Message does not make another.
//
// Errors: ErrNoDeadLetter; ErrLost, before anything is done; a copy that is too large with its attributes, or another error of the
// SQS client; those of Delete.
func (c *Client) DeadLetter(ctx context.Context, m *Message, reason string, attempts int) error {
	if c.cfg.DeadLetterURL == "" {
		return ErrNoDeadLetter
	}
	if m.lease == nil {
		return fmt.Errorf("dead-letter: %w: it was not received", ErrLost)
	}
	if cause := m.Cause(); cause != nil {
		return fmt.Errorf("dead-letter message %s: %w", m.ID, cause)
	}
	if !m.copied {
		if err := c.copy(ctx, m, reason, attempts); err != nil {
			return fmt.Errorf("dead-letter message %s: %w", m.ID, err)
		}
		m.copied = true
	}
	return c.Delete(ctx, m)
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
			string(types.MessageSystemAttributeNameForSendsAWSTraceHeader): {DataType: aws.String("String"), StringValue: aws.String(m.TraceHeader)},
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	_, err := c.api.SendMessage(ctx, in, once)
	return err
}

// plain makes a text fit for an attribute: SQS takes the characters of XML 1.0 only, and no empty value. Reasons may quote what an
// attacker wrote.
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
