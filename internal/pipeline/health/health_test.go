package health

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newMonitor returns one without a pool. The machine is fit.
func newMonitor(t *testing.T) *Monitor {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	m := New(Config{Bucket: "b", Prefix: "images/"}, Deps{
		Store: st, Log: zerolog.Nop(), OnRecovery: func() {}, OnDisk: func(string, int64, int64) {},
		Remedy: func(error) string { return "wait" },
	})
	m.Capacity = func() Reasons { return nil }
	return m
}

// A poll that fails is said, with what to do, until one succeeds.
func TestPolled(t *testing.T) {
	m := newMonitor(t)
	for _, tc := range []struct {
		err  error
		says string
	}{
		{fmt.Errorf("get identity: %w", awserr.ErrNoCredentials), "credentials: set AWS_ACCESS_KEY_ID"},
		{&smithy.GenericAPIError{Code: "ExpiredToken"}, "credentials: set AWS_ACCESS_KEY_ID"},
		{&smithy.GenericAPIError{Code: "AccessDenied"}, "denied: allow sqs:ReceiveMessage"},
		{&smithy.GenericAPIError{Code: "QueueDoesNotExist"}, "not_found: correct SQS_QUEUE_URL"},
		{syscall.ECONNREFUSED, "network: see to DNS"},
		{errors.New("refused"), "other: see what answers"},
	} {
		m.Polled(tc.err)
		if err := m.Reasons().Err(); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v is said as %v, want %q", tc.err, err, tc.says)
		}
	}
	m.Polled(nil)
	if err := m.Reasons().Err(); err != nil {
		t.Error(err)
	}
}

// A disk without its reserve stops work, and so does one without a mebibyte whatever the
// reserve is.
func TestDiskCapacity(t *testing.T) {
	dir := t.TempDir()
	_, free, err := provision.FreeUnder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for reserve, fits := range map[int64]bool{0: true, free / 2: true, 2 * free: false} {
		m := New(Config{Disks: []string{dir}, MinFreeDisk: reserve}, Deps{OnDisk: func(string, int64, int64) {}})
		if err := m.diskCapacity(); (err == nil) != fits || err != nil && !errors.Is(err, provision.ErrDiskLow) {
			t.Errorf("%d of %d bytes must be free: %v", reserve, free, err)
		}
	}
}

// While the bucket itself does not answer nothing is admitted; it is looked at again by
// itself, less and less often.
func TestOutageOfTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitor(t)
		var well atomic.Bool
		var looks atomic.Int64
		m.deps.Probe = func(context.Context) error {
			looks.Add(1)
			if well.Load() {
				return nil
			}
			return download.ErrNoBucket
		}
		if err := m.LookAtBucket(t.Context()); err == nil || m.AcceptingWork() || m.Reasons().Err() == nil {
			t.Fatal("work is taken although the bucket does not answer")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go m.Watch(ctx)
		time.Sleep(10 * time.Minute) //nolint:forbidigo // of the bubble's clock
		if n := looks.Load(); n < 10 || n > 100 {
			t.Errorf("%d looks in ten minutes", n)
		}
		well.Store(true)
		time.Sleep(2 * longestTrial) //nolint:forbidigo // of the bubble's clock
		if !m.AcceptingWork() || m.Reasons().Err() != nil {
			t.Error(m.Reasons().Err())
		}
		cancel()
		synctest.Wait()
	})
}

// A pool whose parts do not belong together any more takes nothing: the next start would
// refuse it, with all that was put into it meanwhile.
func TestPoolDoesNotProveItself(t *testing.T) {
	m := newMonitor(t)
	m.PoolProved(fmt.Errorf("%w: the data are another's", devmapper.ErrForeign))
	if err := m.checkProof(); !errors.Is(err, devmapper.ErrForeign) {
		t.Errorf("%v", err)
	}
	for _, passing := range []error{nil, devmapper.ErrReadOnly} { // has a condition of its own
		m.PoolProved(passing)
		if err := m.poolProof(); err != nil {
			t.Errorf("after %v: %v", passing, err)
		}
	}
}

// While every message is about something else they go back to the queue, at ever longer
// intervals; once one was ours the rest are what they are.
func TestForeignUntilProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitor(t)
		held := func() int { return 0 }
		o := queue.Object{Bucket: "other", Key: "images/x.tar"}
		all, first := m.NoteForeign(o)
		if !all || m.Reasons().Err() == nil {
			t.Fatal("the first foreign message is taken for what it is")
		}
		for range 30 {
			if !m.AwaitTrial(t.Context(), held) {
				t.Fatal("messages are not taken one by one")
			}
			m.NoteForeign(o)
		}
		if _, away := m.NoteForeign(o); away <= first || away > longestForeign {
			t.Errorf("the last is away for %s", away)
		}
		m.NoteOurs()
		all, _ = m.NoteForeign(o)
		if all || m.Reasons().Err() != nil || m.AwaitTrial(t.Context(), held) {
			t.Error("one was ours, and foreign ones are held up still", m.Reasons().Err())
		}
	})
}
