package queue_test

import (
	"errors"
	"net/http"
	"path"
	"testing"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/test/emulator"
)

// Depths are those of the two queues. Without the right there is an error, and without a
// dead-letter queue another.
func TestDepth(t *testing.T) {
	w := newWire(t)
	dead, _ := w.queue(t, "dead")
	w.send(t, "a", "b", "c")
	c := w.client(t, queue.Config{DeadLetterURL: dead})
	held := take(t, c, 1)
	if d, err := c.Depth(t.Context()); err != nil || d != (queue.Depth{Visible: 2, InFlight: 1}) {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.DeadLetter(t.Context(), held[0], "hopeless", 1); err != nil {
		t.Fatal(err)
	}
	if d, err := c.DeadLetterDepth(t.Context()); err != nil || d != (queue.Depth{Visible: 1}) {
		t.Errorf("dead letters: %+v, %v", d, err)
	}
	w.emu.Fault(emulator.Fault{
		Op: "GetQueueAttributes", Target: path.Base(dead), Status: http.StatusForbidden, Code: "AccessDenied",
	})
	if d, err := c.DeadLetterDepth(t.Context()); awserr.Classify(err) != awserr.Denied || d != (queue.Depth{}) {
		t.Errorf("without the right: %+v, %v", d, err)
	}
	if _, err := w.client(t, queue.Config{}).DeadLetterDepth(t.Context()); !errors.Is(err, queue.ErrNoDeadLetter) {
		t.Errorf("without a dead-letter queue: %v", err)
	}
}
