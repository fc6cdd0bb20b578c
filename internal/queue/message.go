package queue

import (
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Message is one message received. Whoever has it must end it with Delete, Release or
// DeadLetter.
type Message struct {
	ID           string
	ReceiveCount int       // how often anyone has received the message, this time included; approximate
	SentAt       time.Time // by the queue's clock; zero if the queue did not say
	TraceHeader  string    // AWSTraceHeader: the X-Ray context of the sender, "" if there is none
	Body         string

	Notification Notification // what the body says
	Malformed    error        // why it says nothing: ErrMalformed, with the reason

	lease  *lease
	ended  bool // by Delete, Release or DeadLetter; guarded by the leases
	copied bool // to the dead-letter queue; DeadLetter's, which is not called concurrently for one message
}

// Lost is closed when the message is lost: its lease ran out or the queue says that its
// receipt handle is no longer valid. What is done about the message then is done by two
// consumers. It is closed by Run; it stays open once the message has been ended.
func (m *Message) Lost() <-chan struct{} {
	if m.lease == nil {
		return nil
	}
	return m.lease.lost
}

// Cause tells why the message was lost: an ErrLost with the reason. It is nil while Lost
// is open.
func (m *Message) Cause() error {
	select {
	case <-m.Lost():
		return m.lease.cause
	default:
		return nil
	}
}

// wanted are the system attributes that a receive asks for. None comes unasked.
var wanted = []types.MessageSystemAttributeName{
	types.MessageSystemAttributeNameApproximateReceiveCount,
	types.MessageSystemAttributeNameSentTimestamp,
	types.MessageSystemAttributeNameAWSTraceHeader,
}

// newMessage reads what SQS says of a message. An attribute that is missing or unreadable
// is unknown, not an error.
func newMessage(raw types.Message) *Message {
	attr := func(name types.MessageSystemAttributeName) string { return raw.Attributes[string(name)] }
	m := &Message{
		ID:           aws.ToString(raw.MessageId),
		ReceiveCount: 1,
		SentAt:       milliseconds(attr(types.MessageSystemAttributeNameSentTimestamp)),
		TraceHeader:  attr(types.MessageSystemAttributeNameAWSTraceHeader),
		Body:         aws.ToString(raw.Body),
	}
	if n, err := strconv.Atoi(attr(types.MessageSystemAttributeNameApproximateReceiveCount)); err == nil && n > 0 {
		m.ReceiveCount = n
	}
	m.Notification, m.Malformed = Parse(m.Body)
	return m
}

// milliseconds reads a time in milliseconds since 1970; the zero time if it is none.
func milliseconds(s string) time.Time {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
