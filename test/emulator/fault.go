package emulator

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is something that goes wrong with an operation. The first one that matches a
// request is used up by it.
//
// Without After, what happens happens instead of the operation, which has no effect:
// nothing is received, stored or deleted. With After, or Rate or Corrupt, the operation
// takes effect and the body of its answer suffers.
type Fault struct {
	// Op is an operation as in the AWS API reference, such as "GetObject" or
	// "DeleteMessageBatch"; empty matches all. Two operations are the emulator's own:
	// "Notify" (S3 hands an event to a queue) and "Redrive" (SQS moves a message to a
	// dead-letter queue), of which Skip, Times and Status alone matter: with a Status the
	// event is lost, and the message stays.
	Op string
	// Target is a queue's name, a bucket or bucket/key, and matches what it is a prefix
	// of; empty matches all.
	Target string

	Skip  int // matching requests that pass first
	Times int // requests that are hit then; 0 means all until Clear

	Latency time.Duration // waits this long before anything else, by the emulator's clock

	Status int    // answer with this HTTP status, an error
	Code   string // its code; by default one that the service uses with that status

	Hang bool // accept the request, read it, and never answer; ended by the client, Clear or Close
	// Reset cuts the connection with a TCP reset, Break ends it in order, but early. Go's
	// transport by itself repeats an idempotent request whose connection was not new and
	// ended before the first byte of the answer: with Times of 1 its caller may see
	// nothing.
	Reset, Break bool
	Lost         bool // perform the operation, then reset the connection: the caller cannot know

	After   int64 // bytes of the answer's body that pass before Hang, Reset, Break or Corrupt
	Rate    int64 // bytes a second of the answer's body, by the emulator's clock
	Corrupt bool  // invert one byte of the body of the answer, the one at After

	// Entries is how many entries of a batch, from the first, fail with Code; by the
	// sender's fault if Status is below 500. The answer's own status stays 200. A
	// negative number means all.
	Entries int
	// Redeliver makes ReceiveMessage leave what it returns visible: the same message
	// comes again, with another handle.
	Redeliver bool
	// Reverse makes ReceiveMessage begin with the newest message.
	Reverse bool

	cleared <-chan struct{} // ends what hangs; that of the moment when the fault was met, so that no Clear is missed
}

// faults is what was asked for, and what was called.
type faults struct {
	mu      sync.Mutex
	list    []*Fault
	cleared chan struct{} // closed by clear: ends what hangs
	calls   map[string]int
}

func newFaults() *faults {
	return &faults{cleared: make(chan struct{}), calls: map[string]int{}}
}

// Fault adds a fault.
func (s *Server) Fault(f Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	s.faults.list = append(s.faults.list, &f)
}

// Clear removes all faults, ends the requests that hang, and returns notifications to the
// ordinary: see [Server.Deliver].
func (s *Server) Clear() {
	s.faults.mu.Lock()
	s.faults.list = nil
	close(s.faults.cleared)
	s.faults.cleared = make(chan struct{})
	s.faults.mu.Unlock()
	s.Deliver(Delivery{})
}

// Calls says how often an operation was called, faults included; with an empty name, how
// often any was.
func (s *Server) Calls(op string) int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return s.faults.calls[op]
}

func (f *faults) count(op string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	if op != "" {
		f.calls[""]++
	}
}

// take uses up the fault that a request meets, if any.
func (f *faults) take(op, target string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, x := range f.list {
		switch {
		case x.Op != op && (x.Op != "" || isOwn(op)) || !strings.HasPrefix(target, x.Target):
		case x.Skip > 0:
			x.Skip--
		default:
			hit := *x
			hit.cleared = f.cleared
			if x.Times > 0 {
				x.Times--
			}
			if x.Times == 0 {
				f.list = slices.Delete(f.list, i, i+1)
			}
			return hit, true
		}
	}
	return Fault{}, false
}

// isOwn reports whether the operation is one that no client calls.
func isOwn(op string) bool { return op == opNotify || op == opRedrive }

const (
	opNotify  = "Notify"
	opRedrive = "Redrive"
)
