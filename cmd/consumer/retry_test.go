package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
)

// Whatever an image is, retry says what becomes of it. One wrong name, and nothing is
// done.
func TestRetry(t *testing.T) {
	j := begun(t)
	j.fill()
	const busy = "image 4 (images/busy.tar) waits for a daemon to run\n"
	const again = ": it is taken up again, once a daemon runs\n"
	if code, text := perform(t, "retry 2 images/none.tar"); code != 5 || !strings.Contains(text, "images/none.tar") {
		t.Errorf("one wrong name: exit code %d: %s", code, text)
	}
	for _, c := range []struct{ line, says string }{
		{"retry setuid.tar", "image 2 (images/setuid.tar) was rejected" + again},
		{"retry attack.tar", "image 5 (images/attack.tar) was refused as an attack" + again},
		{"retry 4", busy},
		{"retry images/debian/12.tar", "image 3 (images/debian/12.tar) is active: nothing to do\n"},
		{"retry 4 1", busy + "image 1 (images/debian/12.tar) is active: nothing to do\n"},
	} {
		if code, text := perform(t, c.line); code != 0 || text != c.says {
			t.Errorf("%s: exit code %d: %s", c.line, code, text)
		}
	}
	for _, state := range []store.State{store.StateVanished, store.StateSuperseded, store.StateDead} {
		j.ended("images/"+string(state), string(state), "because")
		code, text := perform(t, "retry "+string(state))
		if code != 0 || !strings.Contains(text, "was "+string(state)) {
			t.Errorf("%s: exit code %d: %s", state, code, text)
		}
	}
	must[store.Attempt](j)(j.Begin(t.Context(), 4, store.StageDownload))
	if _, text := perform(t, "retry 4"); !strings.Contains(text, "is being worked on") {
		t.Errorf("running: %s", text)
	}
}

// With --wait the command ends as the image does: with its snapshot, or with its reason
// and an exit code.
func TestWait(t *testing.T) {
	for state, c := range map[store.State]struct {
		code int
		says string
	}{
		store.StateActive:     {0, "/dev/mapper/cim-images-snap-6\n"},
		store.StateRejected:   {8, "image 2 (images/setuid.tar) was rejected: because"},
		store.StateViolation:  {9, "was refused as an attack: because"},
		store.StateVanished:   {5, "has no object any more: because"},
		store.StateSuperseded: {1, "is superseded: because"},
		store.StateDead:       {1, "is dead: because"},
	} {
		t.Run(string(state), func(t *testing.T) {
			j := begun(t)
			j.fill()
			took := make(chan struct{})
			go func() {
				defer close(took)
				j.awaitPending(2)
				if state == store.StateActive {
					j.activate(store.Image{ID: 2})
				} else {
					j.end(store.Image{ID: 2}, string(state), "because")
				}
			}()
			code, text := perform(t, "retry --wait 2")
			<-took
			if code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("exit code %d, want %d and %q: %s", code, c.code, c.says, text)
			}
		})
	}
}

// awaitPending waits until an image is pending.
func (j *journal) awaitPending(id int64) {
	j.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if must[store.Image](j)(j.Image(j.t.Context(), id)).State == store.StatePending {
			return
		}
	}
}

// A program gets the image with its snapshot.
func TestWaitJSON(t *testing.T) {
	j := begun(t)
	j.fill()
	code, text := perform(t, "retry --wait --json 1")
	var answer requested
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, text)
	}
	if answer.Snapshot == nil || answer.Snapshot.Device != 2 || answer.Image.ID != 1 || answer.Changed ||
		answer.Was != store.StateActive {
		t.Errorf("%+v", answer)
	}
}

// Whoever waits may stop waiting: the image goes on.
func TestWaitIsInterrupted(t *testing.T) {
	j := begun(t)
	j.fill()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		j.awaitPending(2)
		cancel()
	}()
	var out, errs strings.Builder
	root := newProgram(&out)
	root.SetErr(&errs)
	root.SetArgs([]string{"retry", "2", "--wait"})
	code := report(root.ExecuteContext(ctx), &errs)
	if code != 130 || out.String() != "" || !strings.Contains(errs.String(), "image 2 goes on") {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
}
