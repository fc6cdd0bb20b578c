package emulator

import (
	"container/heap"
	"container/list"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// queues is SQS.
type queues struct {
	clock    Clock
	faults   *faults
	closed   <-chan struct{}
	region   string
	inFlight int
	secret   [16]byte // of receipt handles

	mu    sync.Mutex
	named map[string]*queue
	moves []moveTask
}

func newQueues(cfg Config, f *faults, closed <-chan struct{}) *queues {
	q := &queues{
		clock: cfg.Clock, faults: f, closed: closed, region: cfg.Region, inFlight: cfg.InFlight,
		named: map[string]*queue{},
	}
	rand.Read(q.secret[:]) // never fails
	return q
}

// queue is one queue. Every message of it is in byID, and in exactly one of visible and
// hidden.
type queue struct {
	name       string
	arn        string
	created    time.Time
	modified   time.Time
	attributes map[string]string // as set, without those that SQS computes
	tags       map[string]string

	byID    map[string]*message
	visible list.List // of *message, in the order of delivery
	hidden  hiddenHeap
	delayed int           // of the hidden, those that nobody has received yet
	changed chan struct{} // closed and replaced to wake the polls: see show, hide, and the end of the queue
	waiting int           // polls
	gone    bool
}

// message is one message. Its fields are guarded by the mutex of queues.
type message struct {
	id, body   string
	attributes map[string]messageAttribute
	trace      string // AWSTraceHeader
	sender     string
	group      string // MessageGroupId: on a standard queue the tenant of fair queues, and nothing but a label here
	sent       time.Time
	first      time.Time // received
	receives   int       // in all its queues
	here       int       // receives in this queue
	source     string    // ARN of the queue that it was dead-lettered from

	leased   time.Time // of the latest receive
	until    time.Time // hidden until then
	inFlight bool      // hidden because it was received
	place    *list.Element
	index    int // in hidden; -1 while visible
}

// hiddenHeap has the message first that becomes visible first.
type hiddenHeap []*message

// Len is for container/heap.
func (h hiddenHeap) Len() int { return len(h) }

// Less is for container/heap.
func (h hiddenHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }

// Swap is for container/heap.
func (h hiddenHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *hiddenHeap) Push(x any) {
	m, _ := x.(*message)
	m.index = len(*h)
	*h = append(*h, m)
}

// Pop is for container/heap.
func (h *hiddenHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	*h = slices.Delete(*h, last, last+1)
	m.index = -1
	return m
}

// find returns a queue by its name. The mutex is held.
func (q *queues) find(name string) (*queue, error) {
	if k := q.named[queueName(name)]; k != nil {
		return k, nil
	}
	return nil, errNoQueue
}

// add puts a message into the queue: visible, or hidden for its delay.
func (k *queue) add(m *message, now time.Time, delay time.Duration) {
	k.byID[m.id] = m
	if delay > 0 {
		k.hide(m, now.Add(delay), false)
		return
	}
	k.show(m)
}

// show makes a message visible, behind the others.
func (k *queue) show(m *message) {
	m.index, m.inFlight = -1, false
	m.place = k.visible.PushBack(m)
	k.wake()
}

// hide takes a message that is in neither list out of sight. Where it is the next to
// be seen, the polls look again: they sleep until the one that was the next before.
func (k *queue) hide(m *message, until time.Time, inFlight bool) {
	m.until, m.inFlight = until, inFlight
	if !inFlight {
		k.delayed++
	}
	heap.Push(&k.hidden, m)
	if m.index == 0 {
		k.wake()
	}
}

// pull takes a message out of the list it is in, to go into another.
func (k *queue) pull(m *message) {
	if m.place != nil {
		k.visible.Remove(m.place)
		m.place = nil
		return
	}
	heap.Remove(&k.hidden, m.index)
	if !m.inFlight {
		k.delayed--
	}
}

// remove deletes a message.
func (k *queue) remove(m *message) {
	k.pull(m)
	delete(k.byID, m.id)
}

// settle makes visible what has been hidden long enough.
func (k *queue) settle(now time.Time) {
	for len(k.hidden) > 0 && !k.hidden[0].until.After(now) {
		m := k.hidden[0]
		k.pull(m)
		k.show(m)
	}
}

// wake ends the wait of the polls; they look again.
func (k *queue) wake() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// flying is how many messages are received and not deleted.
func (k *queue) flying() int { return len(k.hidden) - k.delayed }

// seconds is an attribute of the queue, or its default, as a duration.
func (k *queue) seconds(attribute string) time.Duration {
	n, _ := strconv.Atoi(k.attribute(attribute)) // checked when it was set
	return time.Duration(n) * time.Second
}

func (k *queue) attribute(name string) string {
	if v, set := k.attributes[name]; set {
		return v
	}
	return defaultAttributes[name]
}

// Waiting is how many polls wait for a message of the queue.
func (s *Server) Waiting(queue string) int {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	k, err := s.queues.find(queue)
	if err != nil {
		return 0
	}
	return k.waiting
}

// Expire ends the visibility timeout of all messages in flight of the queue: each is
// there for who polls next, or comes first with a late extension. It returns how many
// they were.
func (s *Server) Expire(queue string) int {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	k, err := s.queues.find(queue)
	if err != nil {
		return 0
	}
	n := 0
	for _, m := range slices.Clone(k.hidden) {
		if m.inFlight {
			k.pull(m)
			k.show(m)
			n++
		}
	}
	return n
}

// send is how S3 brings an event to a queue. It fails where the queue is not there.
func (q *queues) send(arn, body string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.byARN(arn)
	if k == nil {
		return errNoQueue
	}
	now := q.clock.Now()
	k.add(&message{id: newID(), body: body, sender: "AIDAJAJOXRBTDOPS3EVENTS", sent: now}, now,
		k.seconds("DelaySeconds"))
	return nil
}

// byARN finds a queue by its ARN; nil where there is none. The mutex is held.
func (q *queues) byARN(arn string) *queue {
	if k := q.named[nameInARN(arn)]; k != nil && k.arn == arn {
		return k
	}
	return nil
}

func (q *queues) arnOf(name string) string {
	return "arn:aws:sqs:" + q.region + ":" + Account + ":" + name
}

func nameInARN(arn string) string { return arn[strings.LastIndex(arn, ":")+1:] }
