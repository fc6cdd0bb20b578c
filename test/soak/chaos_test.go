package soak

import (
	"math/rand/v2"
	"syscall"
	"time"

	"imagemanager.internal/test/emulator"
)

// fault makes S3 or SQS misbehave for everybody, for some seconds. No failure may be
// counted against an image.
func (s *soak) fault(r *rand.Rand) bool {
	if !s.troubleMu.TryLock() {
		return false
	}
	defer s.troubleMu.Unlock()
	emu, all := s.Cloud.Emulator, faults()
	f := all[r.IntN(len(all))]
	for _, f := range f.faults {
		emu.Fault(f)
	}
	if f.delivery != (emulator.Delivery{}) {
		emu.Deliver(f.delivery)
	}
	s.recordStep("fault: " + f.name)
	lasts := time.Second + time.Duration(r.Int64N(int64(2*time.Second)))
	if f.outage {
		lasts *= 4
	}
	s.pause(lasts)
	emu.Clear()
	return true
}

// trouble is one way in which S3 and SQS misbehave.
type trouble struct {
	name     string
	outage   bool // nothing goes while it lasts
	faults   []emulator.Fault
	delivery emulator.Delivery
}

func faults() []trouble {
	everything := func(f emulator.Fault) []emulator.Fault {
		head := f
		f.Op, head.Op = "GetObject", "HeadObject"
		return []emulator.Fault{f, head}
	}
	one := func(f emulator.Fault) []emulator.Fault { return []emulator.Fault{f} }
	throttled := emulator.Fault{Op: "ReceiveMessage", Status: 400, Code: "ThrottlingException"}
	entries := emulator.Fault{Op: "DeleteMessageBatch", Times: 3, Status: 500, Entries: -1}
	return []trouble{
		{
			name: "S3 out of order", outage: true,
			faults: everything(emulator.Fault{Status: 503, Code: "ServiceUnavailable"}),
		},
		{name: "S3 denies", outage: true, faults: everything(emulator.Fault{Status: 403, Code: "AccessDenied"})},
		{name: "S3 resets", outage: true, faults: everything(emulator.Fault{Reset: true})},
		{name: "S3 slow", faults: one(emulator.Fault{Op: "GetObject", Rate: 50_000})},
		{name: "receive: 500", faults: one(emulator.Fault{Op: "ReceiveMessage", Status: 500})},
		{name: "receive: throttled", faults: one(throttled)},
		{name: "receive: answer lost", faults: one(emulator.Fault{Op: "ReceiveMessage", Times: 1, Lost: true})},
		{name: "receive: redelivered", faults: one(emulator.Fault{Op: "ReceiveMessage", Redeliver: true})},
		{name: "receive: newest first", faults: one(emulator.Fault{Op: "ReceiveMessage", Reverse: true})},
		{
			name:   "heartbeat: 500",
			faults: one(emulator.Fault{Op: "ChangeMessageVisibilityBatch", Times: 3, Status: 500}),
		},
		{name: "settle: 500", faults: one(emulator.Fault{Op: "DeleteMessageBatch", Times: 3, Status: 500})},
		{name: "settle: entries fail", faults: one(entries)},
		{name: "settle: answer lost", faults: one(emulator.Fault{Op: "DeleteMessageBatch", Times: 1, Lost: true})},
		{name: "delivered three times", delivery: emulator.Delivery{Copies: 3}},
		{name: "delivered in reverse", delivery: emulator.Delivery{Hold: 4}},
		{name: "several records a message", delivery: emulator.Delivery{Records: 3}},
		{name: "through SNS", delivery: emulator.Delivery{Envelope: emulator.SNS}},
		{name: "through EventBridge", delivery: emulator.Delivery{Envelope: emulator.EventBridge}},
	}
}

// kill is a power cut for the process. No image is interrupted so twice: several times in
// a row, and it may be the image that kills.
func (s *soak) kill(r *rand.Rand) bool {
	if !s.daemonMu.TryLock() {
		return false
	}
	defer s.daemonMu.Unlock()
	pending, err := s.Store.PendingImages(s.T.Context())
	s.Check(err)
	for _, img := range pending {
		if s.killed[img.ID] {
			return false
		}
	}
	s.Kill()
	if s.killed == nil {
		s.killed = map[int64]bool{}
	}
	if pending, err = s.Store.PendingImages(s.T.Context()); err == nil {
		for _, img := range pending {
			s.killed[img.ID] = true
		}
	}
	s.Check(err)
	s.pause(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
	s.start()
	return true
}

// restart ends the daemon as a service manager does, and starts it again.
func (s *soak) restart(*rand.Rand) bool {
	if !s.daemonMu.TryLock() {
		return false
	}
	defer s.daemonMu.Unlock()
	s.stop()
	s.start()
	return true
}

// stop ends the daemon by SIGTERM; the caller holds it, or is the only one.
func (s *soak) stop() {
	s.T.Helper()
	s.Signal(syscall.SIGTERM)
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case <-s.Done():
		if code := s.ExitCode(); code != 0 {
			s.Errorf("the daemon, stopped, exits with %d: %s", code, s.lastWords())
		}
	case <-timer.C:
		s.Errorf("the daemon does not stop within a minute")
		s.Kill()
	}
}

// start starts the daemon, whatever commands run. The caller holds it, or is the only
// one.
func (s *soak) start() {
	s.T.Helper()
	for range 20 {
		s.Start()
		if s.waitUp() {
			return
		}
		s.Errorf("the daemon does not start: exit code %d: %s", s.ExitCode(), s.lastWords())
		s.pause(200 * time.Millisecond)
	}
	s.finish()
}

// waitUp reports whether the daemon that was started runs.
func (s *soak) waitUp() bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	for !s.IsRunning() {
		select {
		case <-tick.C:
		case <-s.Done():
			return false
		case <-timer.C:
			s.Kill()
			return false
		}
	}
	return true
}

// lastWords is the last line that the daemon logged.
func (s *soak) lastWords() string { return lastLine(string(s.NewestLog())) }
