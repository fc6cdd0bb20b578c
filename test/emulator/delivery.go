package emulator

import (
	"slices"
	"sync"
)

// Delivery is how events get to their queues. The zero value is ordinary delivery: each
// event at once, once, in a message of its own.
type Delivery struct {
	Envelope Envelope
	Copies   int  // how often each message is sent; 0 is once
	Records  int  // events of a queue that are collected into one message; [Server.Flush] sends fewer
	Hold     int  // messages that are kept back, then sent in reverse; [Server.Flush] sends fewer
	Lose     bool // send nothing
}

// courier brings events to queues.
type courier struct {
	queues *queues
	clock  Clock
	region string

	mu      sync.Mutex
	how     Delivery
	records map[string][]event // collected, by the queue's ARN
	held    []letter
}

// letter is a message that has its form.
type letter struct{ arn, body string }

// Deliver changes how events are delivered from now on. What was collected or held back
// before is sent first.
func (s *Server) Deliver(d Delivery) {
	s.Flush()
	s.courier.mu.Lock()
	defer s.courier.mu.Unlock()
	s.courier.how = d
}

// Flush sends what was collected or held back: see [Delivery].
func (s *Server) Flush() {
	c := s.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	for arn, events := range c.records {
		c.dispatch(letter{arn: arn, body: c.form(events)})
	}
	c.records = nil
	c.release()
}

// event takes one event for a queue.
func (c *courier) event(arn string, e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.how.Records < 2 || c.how.Envelope == EventBridge || c.how.Envelope == EventBridgeInSNS {
		c.dispatch(letter{arn: arn, body: c.form([]event{e})})
		return
	}
	if c.records == nil {
		c.records = map[string][]event{}
	}
	c.records[arn] = append(c.records[arn], e)
	if events := c.records[arn]; len(events) == c.how.Records {
		delete(c.records, arn)
		c.dispatch(letter{arn: arn, body: c.form(events)})
	}
}

// test sends a test event, which is neither lost nor copied.
func (c *courier) test(arn, bucket, requestID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	body := testEvent(bucket, now, requestID)
	if c.how.Envelope == SNS {
		body = inSNS(body, c.region, now)
	}
	_ = c.queues.send(arn, body) // the caller looked that the queue is there
}

// form puts events into the envelope.
func (c *courier) form(events []event) string {
	var records []map[string]any
	for _, e := range events {
		records = append(records, e.record())
	}
	body := encode(map[string]any{"Records": records})
	if c.how.Envelope == EventBridge || c.how.Envelope == EventBridgeInSNS {
		body = encode(events[0].eventBridge())
	}
	if c.how.Envelope == SNS || c.how.Envelope == EventBridgeInSNS {
		body = inSNS(body, events[0].region, c.clock.Now())
	}
	return body
}

// dispatch holds a message back, or sends it.
func (c *courier) dispatch(l letter) {
	if c.how.Hold < 2 {
		c.send(l)
		return
	}
	c.held = append(c.held, l)
	if len(c.held) == c.how.Hold {
		c.release()
	}
}

func (c *courier) release() {
	for _, l := range slices.Backward(c.held) {
		c.send(l)
	}
	c.held = nil
}

// send gives a message to its queue. One that is gone gets nothing, and nobody is told,
// as with AWS.
func (c *courier) send(l letter) {
	faults := c.queues.faults
	faults.count(opNotify)
	if f, hit := faults.take(opNotify, nameInARN(l.arn)); c.how.Lose || hit && f.Status != 0 {
		return
	}
	for range max(1, c.how.Copies) {
		_ = c.queues.send(l.arn, l.body)
	}
}
