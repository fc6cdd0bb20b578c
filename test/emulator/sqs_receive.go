package emulator

import (
	"container/list"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxVisibility = 43_200 // seconds: 12 hours
	maxWait       = 20     // seconds
	maxBatch      = 10
)

type receiveInput struct {
	QueueUrl                    string //nolint:revive // the API's name
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
	AttributeNames              []string `query:"AttributeName"`
	MessageSystemAttributeNames []string `query:"MessageSystemAttributeName"`
	MessageAttributeNames       []string `query:"MessageAttributeName"`
}

type receiveOutput struct {
	Messages []receivedMessage `json:",omitempty" query:"Message"`
}

type receivedMessage struct {
	MessageId              string //nolint:revive // the API's name
	ReceiptHandle          string
	MD5OfBody              string
	Body                   string
	Attributes             map[string]string           `json:",omitempty" query:"Attribute"`
	MD5OfMessageAttributes string                      `json:",omitempty"`
	MessageAttributes      map[string]messageAttribute `json:",omitempty" query:"MessageAttribute"`
}

func (in *receiveInput) check() error {
	for _, p := range []struct {
		name      string
		value     *int
		low, high int
	}{
		{"MaxNumberOfMessages", in.MaxNumberOfMessages, 1, maxBatch},
		{"VisibilityTimeout", in.VisibilityTimeout, 0, maxVisibility},
		{"WaitTimeSeconds", in.WaitTimeSeconds, 0, maxWait},
	} {
		if p.value != nil && (*p.value < p.low || *p.value > p.high) {
			return errParameter.with(
				"Value %d for parameter %s is invalid. Reason: Must be between %d and %d, if provided.", *p.value,
				p.name, p.low, p.high)
		}
	}
	return nil
}

// receiveMessage polls: at once, or until there is something, the wait is over, the queue
// or the client is gone. A client that went before there was something has consumed
// nothing.
func (q *queues) receiveMessage(ctx context.Context, req sqsRequest, in *receiveInput) (receiveOutput, error) {
	if err := in.check(); err != nil {
		return receiveOutput{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return receiveOutput{}, err
	}
	wait := k.seconds("ReceiveMessageWaitTimeSeconds")
	if in.WaitTimeSeconds != nil {
		wait = time.Duration(*in.WaitTimeSeconds) * time.Second
	}
	deadline := q.clock.Now().Add(wait)
	for {
		if ctx.Err() != nil {
			return receiveOutput{}, errSQSUnavailable.with("the client went")
		}
		now := q.clock.Now()
		out, err := q.look(k, now, req.fault, in)
		if err != nil || len(out.Messages) > 0 || !now.Before(deadline) {
			if wait > 0 && err == errOverLimit { //nolint:errorlint // it is returned as it is
				err = nil // a long poll just finds nothing
			}
			return out, err
		}
		if err := q.sleep(ctx, k, deadline, now); err != nil {
			return receiveOutput{}, err
		}
	}
}

// sleep lets go of the mutex until it is worth to look again: a message came, one becomes
// visible, or the wait is over.
func (q *queues) sleep(ctx context.Context, k *queue, deadline, now time.Time) error {
	if len(k.hidden) > 0 && k.hidden[0].until.Before(deadline) {
		deadline = k.hidden[0].until
	}
	timer, stop := q.clock.Timer(deadline.Sub(now))
	defer stop()
	changed := k.changed
	k.waiting++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		k.waiting--
	}()
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
		return errSQSUnavailable.with("the client went")
	case <-q.closed:
		return errSQSUnavailable
	}
	return nil
}

// look takes what there is.
func (q *queues) look(k *queue, now time.Time, f Fault, in *receiveInput) (receiveOutput, error) {
	if k.gone {
		return receiveOutput{}, errNoQueue
	}
	k.settle(now)
	limit := 1
	if in.MaxNumberOfMessages != nil {
		limit = *in.MaxNumberOfMessages
	}
	if k.flying() >= q.inFlight && k.visible.Len() > 0 {
		return receiveOutput{}, errOverLimit
	}
	limit = min(limit, q.inFlight-k.flying())
	visibility := k.seconds("VisibilityTimeout")
	if in.VisibilityTimeout != nil {
		visibility = time.Duration(*in.VisibilityTimeout) * time.Second
	}
	var out receiveOutput
	for _, m := range q.pick(k, now, limit, f.Reverse) {
		q.lease(k, m, now, visibility, f.Redeliver)
		out.Messages = append(out.Messages, q.present(k, m, in))
	}
	return out, nil
}

// pick chooses the next messages to deliver. Those that are too old go, and those that
// were received too often go to the dead-letter queue.
func (q *queues) pick(k *queue, now time.Time, limit int, reverse bool) []*message {
	var picked []*message
	retention := k.seconds("MessageRetentionPeriod")
	dead, receives := q.redrive(k)
	next := (*list.Element).Next
	e := k.visible.Front()
	if reverse {
		next, e = (*list.Element).Prev, k.visible.Back()
	}
	for e != nil && len(picked) < limit {
		m, _ := e.Value.(*message)
		e = next(e)
		switch {
		case !now.Before(m.sent.Add(retention)):
			k.remove(m)
		case dead != nil && m.here >= receives && q.bury(k, dead, m, now):
		default:
			picked = append(picked, m)
		}
	}
	return picked
}

// lease marks a message as received once more, and hides it for as long as asked.
func (q *queues) lease(k *queue, m *message, now time.Time, visibility time.Duration, redeliver bool) {
	m.receives++
	m.here++
	m.leased = now
	if m.first.IsZero() {
		m.first = now
	}
	if redeliver {
		return
	}
	k.pull(m)
	if visibility == 0 {
		k.show(m)
		return
	}
	k.hide(m, now.Add(visibility), true)
}

// present is the message as its receiver sees it.
func (q *queues) present(k *queue, m *message, in *receiveInput) receivedMessage {
	out := receivedMessage{MessageId: m.id, ReceiptHandle: q.handle(k, m), MD5OfBody: md5Hex(m.body), Body: m.body}
	out.Attributes = m.systemAttributes(append(slices.Clone(in.AttributeNames), in.MessageSystemAttributeNames...))
	for name, value := range m.attributes {
		if wants(in.MessageAttributeNames, name) {
			if out.MessageAttributes == nil {
				out.MessageAttributes = map[string]messageAttribute{}
			}
			out.MessageAttributes[name] = value
		}
	}
	out.MD5OfMessageAttributes = md5OfAttributes(out.MessageAttributes)
	return out
}

// systemAttributes are those that were asked for and that the message has.
func (m *message) systemAttributes(names []string) map[string]string {
	all := map[string]string{
		"SenderId":                         m.sender,
		"SentTimestamp":                    strconv.FormatInt(m.sent.UnixMilli(), 10),
		"ApproximateReceiveCount":          strconv.Itoa(m.receives),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.first.UnixMilli(), 10),
		"AWSTraceHeader":                   m.trace,
		"MessageGroupId":                   m.group,
		"DeadLetterQueueSourceArn":         m.source,
	}
	out := map[string]string{}
	for name, value := range all {
		if value != "" && (slices.Contains(names, "All") || slices.Contains(names, name)) {
			out[name] = value
		}
	}
	return out
}

// wants reports whether an attribute was asked for: by name, by "prefix.*", or all of
// them.
func wants(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, wild := strings.CutSuffix(n, ".*")
		return n == "All" || n == name || wild &&
			(prefix == "" || strings.HasPrefix(name, prefix+".") || name == prefix)
	})
}
