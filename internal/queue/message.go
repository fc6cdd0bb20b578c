package queue

import (
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Message is one received message. Its holder must end it with Delete, Release or
// DeadLetter.
type Message struct {
	ID           string
	ReceiveCount int       // how often anyone has received the message, this time included; approximate
	SentAt       time.Time // by the queue's clock; zero if the queue did not say
	ReceivedAt   time.Time // by this machine's clock: when the poll was answered
	TraceHeader  string    // AWSTraceHeader: the X-Ray context of the sender, "" if there is none
	Body         string

	Notification Notification // read from the body
	Malformed    error        // why the body cannot be read: ErrMalformed, with the reason

	lease  *lease
	ended  bool // by Delete, Release or DeadLetter; guarded by the leases
	copied bool // to the dead-letter queue; used by DeadLetter, never called twice at once for one message
}

// Lost is closed when the message is lost: its lease ran out, or the queue no longer
// accepts its receipt handle. From then on another consumer may do the same work. Run
// closes it. It stays open once the message has been ended.
func (m *Message) Lost() <-chan struct{} {
	if m.lease == nil {
		return nil
	}
	return m.lease.lost
}

// Cause returns why the message was lost; the error wraps ErrLeaseLost. It is nil while
// Lost is open.
func (m *Message) Cause() error {
	select {
	case <-m.Lost():
		return m.lease.cause
	default:
		return nil
	}
}

// systemAttributes are requested with every receive. SQS sends none unasked.
var systemAttributes = []types.MessageSystemAttributeName{
	types.MessageSystemAttributeNameApproximateReceiveCount,
	types.MessageSystemAttributeNameSentTimestamp,
	types.MessageSystemAttributeNameAWSTraceHeader,
}

// newMessage reads a message of SQS. A missing or unreadable attribute is not an error:
// its value is unknown.
func newMessage(raw types.Message, received time.Time) *Message {
	attr := func(name types.MessageSystemAttributeName) string { return raw.Attributes[string(name)] }
	m := &Message{
		ID:           aws.ToString(raw.MessageId),
		ReceiveCount: 1,
		SentAt:       milliseconds(attr(types.MessageSystemAttributeNameSentTimestamp)),
		ReceivedAt:   received,
		TraceHeader:  attr(types.MessageSystemAttributeNameAWSTraceHeader),
		Body:         aws.ToString(raw.Body),
	}
	if n, err := strconv.Atoi(attr(types.MessageSystemAttributeNameApproximateReceiveCount)); err == nil && n > 0 {
		m.ReceiveCount = n
	}
	m.Notification, m.Malformed = Parse(m.Body)
	return m
}

// milliseconds reads a time in milliseconds since 1970. It returns the zero time for
// anything else.
func milliseconds(s string) time.Time {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
