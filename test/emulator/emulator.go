// Package emulator is S3, SQS and the notifications between them as one [http.Handler],
// for tests and the demo. It behaves as AWS documents the two services, keeps the bodies
// of objects in files, and fails on demand: see [Server.Fault] and [Server.Deliver].
//
// A request whose X-Amz-Target names AmazonSQS, or that is a form with an Action, is for
// SQS (JSON 1.0 and the older query protocol); everything else is for S3, path style.
// Serve it on the loopback interface only: it asks for no credentials.
//
// Not emulated: signatures (a presigned URL's expiry is observed), permissions but for
// [Server.Attach] and the queue policies of [Config], encryption (its headers are
// answered, and a customer's key is asked for), ACLs and locks of objects, life cycle,
// delivery from FIFO queues, the minute that AWS makes one wait after deleting or purging
// a queue, and everything outside S3 and SQS. S3 operations that are not emulated answer
// 501 NotImplemented.
package emulator

import (
	"fmt"
	"net/http"
	"os"
	"sync"
)

// Account is the account that owns every queue and bucket.
const Account = "000000000000"

// Config says where the emulator keeps its files and how it deviates from the defaults.
// Only Dir is required.
type Config struct {
	Dir    string // bodies go into a new directory in here; made where it is missing
	Region string // of queues, and of buckets created without one; default us-east-1
	Clock  Clock  // default: the wall clock. Governs visibility, waits, retention, latency and every time stamp

	// InFlight is how many messages of a queue may be received and not deleted; default
	// 120,000, as in AWS.
	InFlight int
	// CheckPolicy makes a bucket's notification configuration fail unless the queue's
	// policy lets S3 send for that bucket, as in AWS.
	CheckPolicy bool
}

// Server is the emulator. Its methods may be called at any time, also while it serves.
type Server struct {
	faults     *faults
	identities identities
	clock      Clock
	queues     *queues
	buckets    *buckets
	courier    *courier
	dir        string

	closing   sync.Once
	closed    chan struct{}
	closeErr  error
	serving   sync.WaitGroup
	servingMu sync.Mutex // orders the last Add of serving before Close's Wait
}

// New makes an empty emulator. An error is the file system's.
func New(cfg Config) (*Server, error) {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Clock == nil {
		cfg.Clock = wallClock{}
	}
	if cfg.InFlight <= 0 {
		cfg.InFlight = 120_000
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Dir, "bodies-")
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	s := &Server{clock: cfg.Clock, faults: newFaults(), dir: dir, closed: make(chan struct{})}
	s.identities.byKey = map[string]*identity{}
	s.queues = newQueues(cfg, s.faults, s.closed)
	s.courier = &courier{queues: s.queues, clock: cfg.Clock, region: cfg.Region}
	s.buckets = newBuckets(cfg, &spool{dir: dir}, s.courier)
	return s, nil
}

// Close ends blocked long polls and hung requests, waits for the requests in hand, and
// removes the files that the emulator made. Requests that come later are answered 503. It
// may be called more than once.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.servingMu.Lock()
		close(s.closed)
		s.servingMu.Unlock()
		s.serving.Wait()
		s.closeErr = os.RemoveAll(s.dir)
	})
	return s.closeErr
}

// enter counts a request in; after Close has begun it refuses.
func (s *Server) enter() bool {
	s.servingMu.Lock()
	defer s.servingMu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
		s.serving.Add(1)
		return true
	}
}

// service is one of the two wire protocols with the operation that a request names, ready
// to be served or refused.
type service interface {
	// name is the operation's, as in the AWS API reference, and what it works on: a
	// queue, a bucket, or bucket/key.
	name() (op, target string)
	// serve answers the request. Faults that concern the operation itself are in f.
	serve(w http.ResponseWriter, r *http.Request, f Fault)
	// refuse answers with an error in the service's form.
	refuse(w http.ResponseWriter, r *http.Request, e *apiError)
}

// ServeHTTP answers one request of either service.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "emulator is closed", http.StatusServiceUnavailable)
		return
	}
	defer s.serving.Done()
	id := newID()
	w.Header().Set("X-Amz-Request-Id", id) // S3's
	w.Header().Set("X-Amzn-Requestid", id) // SQS's
	call := s.route(r)
	op, target := call.name()
	s.faults.count(op)
	if !s.allow(r, call) {
		call.refuse(w, r, errNotAllowed)
		return
	}
	f, _ := s.faults.take(op, target)
	s.perform(w, r, call, f)
}

func (s *Server) route(r *http.Request) service {
	if isSQS(r) {
		return newSQSCall(s.queues, r)
	}
	return newS3Call(s.buckets, r)
}
