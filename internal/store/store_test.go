package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "state", "consumer.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func object(n int) Object {
	return Object{Bucket: "b", Key: fmt.Sprintf("images/%d.tar", n), ETag: fmt.Sprintf("etag-%d", n), Size: 10}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The settings of SC-3 hold on every connection of both pools.
func TestPragmas(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	var held []*sql.Conn
	check := func(db *sql.DB, synchronous string) {
		conn := must[*sql.Conn](t)(db.Conn(ctx))
		held = append(held, conn)
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "synchronous": synchronous, "cache_size": "-10000", "busy_timeout": "5000",
			"foreign_keys":       "1",
			"journal_size_limit": fmt.Sprint(walLimit),
		} {
			var got string
			if err := conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("PRAGMA %s = %q (%v), want %q", pragma, got, err, want)
			}
		}
	}
	for range 10 {
		check(s.readDB, "1") // NORMAL
	}
	check(s.writeDB, "2") // FULL
	if got := s.readDB.Stats().MaxOpenConnections; got != 10 {
		t.Errorf("%d open connections allowed, want 10", got)
	}
	for _, c := range held {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A path with characters that a URI gives a meaning to is still that path.
func TestOddPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%41")
	s := must[*Store](t)(Open(t.Context(), filepath.Join(dir, "c.db")))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "c.db")); err != nil || len(names) != 1 ||
		filepath.Dir(names[0]) != dir {
		t.Errorf("database at %v (%v), want it in %s", names, err, dir)
	}
}

// run takes an image through all its stages and returns it as it ends.
func run(t testing.TB, s *Store, o Object) Image {
	t.Helper()
	ctx := t.Context()
	img, created, err := s.Enqueue(ctx, o)
	if err != nil || !created {
		t.Fatalf("Enqueue: created %t, %v", created, err)
	}
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	must[Image](t)(s.FinishDownload(ctx, a, Blob{Path: "p", SHA256: "s", Size: 10}))
	a = must[Attempt](t)(s.Begin(ctx, img.ID, StageUnpack))
	d := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindImage, Bytes: 1 << 20, FSUUID: "u"}))
	for _, st := range []DeviceState{DeviceCreated, DeviceFormatted, DeviceFilled} {
		d = must[Device](t)(s.Advance(ctx, a, d, st))
	}
	d = must[Device](t)(s.Seal(ctx, a, d, Tree{Device: d.ID, Digest: "sha256:x"}, nil))
	must[Image](t)(s.FinishUnpack(ctx, a, d))
	a = must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	sn := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindSnapshot, Bytes: 1 << 20, Origin: d.ID}))
	return must[Image](t)(s.FinishActivate(ctx, a, sn, s.now(), "/dev/mapper/x"))
}

func TestWholeLife(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	if img.State != StateActive || img.Stage != "" || img.Running || img.Blob == nil || img.Tree == nil {
		t.Errorf("after all stages: %+v", img.Progress)
	}
	if sn := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID)); len(sn) != 1 || sn[0].Path != "/dev/mapper/x" ||
		sn[0].Key != img.Key {
		t.Errorf("snapshots: %+v", sn)
	}
	checkTraceID(t, img, must[[]Event](t)(s.History(ctx, img.ID))[0])
	again, created, err := s.Enqueue(ctx, img.Object)
	if err != nil || created || again.ID != img.ID {
		t.Errorf("second Enqueue: %d, created %t, %v", again.ID, created, err)
	}
	// a further snapshot is an attempt at the last stage and leaves the image active
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	sn := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindSnapshot, Bytes: 1 << 20, Origin: img.Tree.Device}))
	if img = must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "retry", Reason: "pool"})); img.State != StateActive ||
		img.Failures != 0 {
		t.Errorf("a failed further snapshot changed the image: %+v", img.Progress)
	}
	for _, st := range []DeviceState{DeviceDeleting, DeviceGone} {
		if err := s.SetDeviceState(ctx, sn.ID, st); err != nil {
			t.Fatal(err)
		}
	}
	if ds := must[[]Device](t)(s.Devices(ctx)); len(ds) != 2 {
		t.Errorf("devices: %+v", ds)
	}
	if next := run(t, s, object(2)); next.Tree.Device <= sn.ID {
		t.Errorf("device id %d was handed out again (after %d)", next.Tree.Device, sn.ID)
	}
}

// The archive of an active image is lost and cannot be fetched again: the image stays
// what it is.
func TestActiveOutlivesItsArchive(t *testing.T) {
	for _, verdict := range []string{"rejected", "dead"} {
		s := newStore(t)
		img := run(t, s, object(1))
		must[Image](t)(s.Reopen(t.Context(), img.ID, StageDownload, "archive is gone"))
		a := must[Attempt](t)(s.Begin(t.Context(), img.ID, StageDownload))
		img = must[Image](t)(s.Fail(t.Context(), a, Failure{Verdict: verdict, Reason: "object is gone"}))
		if img.State != StateActive || img.Tree == nil || img.Blob != nil ||
			img.Reason != "its archive is missing: object is gone" {
			t.Errorf("after %s: %+v, want an active image without archive", verdict, img.Progress)
		}
	}
}

// A final verdict ends an image, and leaves it to be asked for again; only one that was
// removed is not reopened.
func TestReopenedAfterTheEnd(t *testing.T) {
	for _, verdict := range []State{StateDead, StateRejected, StateViolation, StateSuperseded, StateVanished} {
		s := newStore(t)
		img, _, err := s.Enqueue(t.Context(), object(1))
		if err != nil {
			t.Fatal(err)
		}
		a := must[Attempt](t)(s.Begin(t.Context(), img.ID, StageDownload))
		if img = must[Image](t)(s.Fail(t.Context(), a,
			Failure{Verdict: string(verdict), Reason: "why"})); img.State != verdict || !img.State.Refused() {
			t.Errorf("verdict %s made the image %s", verdict, img.State)
		}
		img, err = s.Reopen(t.Context(), img.ID, StageDownload, "asked for again")
		if err != nil || img.State != StatePending || img.Stage != StageDownload || img.Failures != 0 {
			t.Errorf("%s: reopened to %+v, %v", verdict, img.Progress, err)
		}
		a = must[Attempt](t)(s.Begin(t.Context(), img.ID, StageDownload))
		must[Image](t)(s.Fail(t.Context(), a, Failure{Verdict: string(verdict), Reason: "why"}))
		must[Image](t)(s.Remove(t.Context(), a, ""))
		if img, err = s.Reopen(t.Context(), img.ID, StageDownload, "asked for again"); !errors.Is(err, ErrOrder) {
			t.Errorf("removed, and reopened to %+v, %v", img.Progress, err)
		}
	}
}

// Ids that the pool has without the journal's knowledge are not handed out, whether or
// not the journal has handed out any.
func TestSkipDevices(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	for i, skip := range []int64{41, 7, 99, maxDeviceID} {
		if err := s.AdvanceDeviceIDs(ctx, skip); err != nil {
			t.Fatal(err)
		}
		img := run(t, s, object(i))
		if want := []int64{42, 44, 100, 102}[i]; img.Tree.Device != want {
			t.Errorf("after skipping to %d: device %d, want %d", skip, img.Tree.Device, want)
		}
	}
}

// A message in quarantine is kept once, however often it comes, until it is dropped.
func TestQuarantine(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	for attempts := range 3 {
		if err := s.Quarantine(ctx,
			QuarantinedMessage{MessageID: "m1", Body: "{", Reason: "malformed", Attempts: attempts}); err != nil {
			t.Fatal(err)
		}
	}
	list := must[[]QuarantinedMessage](t)(s.QuarantinedMessages(ctx))
	if len(list) != 1 || list[0].Attempts != 2 || list[0].Body != "{" || !list[0].SentAt.IsZero() {
		t.Fatalf("quarantine: %+v", list)
	}
	if one := must[QuarantinedMessage](t)(s.QuarantinedMessage(ctx, list[0].ID)); one != list[0] {
		t.Errorf("by id %+v, in the list %+v", one, list[0])
	}
	if err := s.DropQuarantined(ctx, list[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DropQuarantined(ctx, list[0].ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("dropped twice: %v, want ErrNotFound", err)
	}
}

func TestBackfillProgress(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	if _, err := s.Backfill(ctx); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the first: %v, want ErrNotFound", err)
	}
	for _, token := range []string{"t1", ""} {
		if err := s.SetBackfill(ctx,
			Backfill{Bucket: "b", Prefix: "p/", Token: token, Listed: 5, Enqueued: 2}); err != nil {
			t.Fatal(err)
		}
		if b := must[Backfill](t)(s.Backfill(ctx)); b.Token != token || b.Listed != 5 || b.Enqueued != 2 ||
			b.Bucket != "b" {
			t.Errorf("progress %+v, want token %q", b, token)
		}
	}
	img, _, err := s.Enqueue(ctx, object(1))
	if err != nil {
		t.Fatal(err)
	}
	if list := must[[]Image](t)(s.NeverAttempted(ctx)); len(list) != 1 || list[0].ID != img.ID {
		t.Errorf("untouched: %+v", list)
	}
	must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	if list := must[[]Image](t)(s.NeverAttempted(ctx)); len(list) != 0 {
		t.Errorf("still untouched after an attempt: %+v", list)
	}
}

func TestFencing(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img, _, err := s.Enqueue(ctx, object(1))
	if err != nil {
		t.Fatal(err)
	}
	old := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	cur := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload)) // the first was cut off by a crash, or is a zombie
	writes := map[string]func(Attempt) error{
		"Downloaded": func(a Attempt) error { _, err := s.FinishDownload(ctx, a, Blob{}); return err },
		"Reserve": func(a Attempt) error {
			_,
				err := s.Reserve(ctx, a, Device{Kind: DeviceKindImage, Bytes: 1})
			return err
		},
		"Fail": func(a Attempt) error {
			_,
				err := s.Fail(ctx, a, Failure{Verdict: "retry", Reason: "x"})
			return err
		},
		"Undo": func(a Attempt) error { _, err := s.Undo(ctx, a, "x"); return err },
	}
	before := len(must[[]Event](t)(s.History(ctx, img.ID)))
	for name, write := range writes {
		if err := write(old); !errors.Is(err, ErrFenced) {
			t.Errorf("%s by a fenced attempt: %v, want ErrFenced", name, err)
		}
	}
	if after := len(must[[]Event](t)(s.History(ctx, img.ID))); after != before ||
		len(must[[]Device](t)(s.Devices(ctx))) != 0 {
		t.Error("a fenced write left something behind")
	}
	must[Image](t)(s.FinishDownload(ctx, cur, Blob{Path: "p"}))
	if _, err := s.FinishDownload(ctx, cur, Blob{}); !errors.Is(err, ErrFenced) {
		t.Errorf("done twice: %v, want ErrFenced", err)
	}
	if _, err := s.Begin(ctx, img.ID, StageActivate); !errors.Is(err, ErrOrder) {
		t.Errorf("stage skipped: %v, want ErrOrder", err)
	}
}

// Ten messages about one object make one image.
func TestConcurrentEnqueue(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	made := make(chan bool, 10)
	for range 10 {
		wg.Go(func() {
			_, created, err := s.Enqueue(context.Background(), object(1))
			if err != nil {
				t.Error(err)
			}
			made <- created
		})
	}
	wg.Wait()
	close(made)
	n := 0
	for c := range made {
		if c {
			n++
		}
	}
	if n != 1 || len(must[[]Image](t)(s.Images(t.Context()))) != 1 {
		t.Errorf("created %d times", n)
	}
}

// Random walks over everything a caller can do, legal or not: whatever was accepted, the
// tables equal the fold of every image's events, and every prefix of every journal folds.
func TestTablesAreTheFold(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStore(t)
			walk(t, s, rand.New(rand.NewPCG(seed, 1)), 150)
			for _, img := range must[[]Image](t)(s.Images(t.Context())) {
				events := must[[]Event](t)(s.History(t.Context(), img.ID))
				for n := range events {
					if _, err := Fold(Progress{}, events[:n]...); err != nil {
						t.Fatalf("prefix %d: %v", n, err)
					}
				}
				if p := must[Progress](t)(Fold(Progress{}, events...)); !reflect.DeepEqual(p, img.Progress) {
					t.Errorf("fold %+v\nrow  %+v", p, img.Progress)
				}
			}
		})
	}
}

func walk(t *testing.T, s *Store, r *rand.Rand, steps int) {
	ctx := t.Context()
	stages := []Stage{StageDownload, StageUnpack, StageActivate}
	attempts := []Attempt{{}}
	devices := []Device{{}}
	for range steps {
		var err error
		a := attempts[max(0, len(attempts)-1-r.IntN(3))]
		d := devices[max(0, len(devices)-1-r.IntN(2))]
		switch r.IntN(15) {
		case 0:
			_, _, err = s.Enqueue(ctx, object(r.IntN(3)))
		case 1, 2, 3:
			var next Attempt
			if next, err = s.Begin(ctx, r.Int64N(4), stages[r.IntN(3)]); err == nil {
				attempts = append(attempts, next)
			}
		case 4:
			_, err = s.FinishDownload(ctx, a, Blob{Path: "p", Size: r.Int64N(9)})
		case 5:
			var made Device
			if made, err = s.Reserve(ctx, a, Device{Kind: DeviceKindImage, Bytes: 1}); err == nil {
				devices = append(devices, made)
			}
		case 6, 7:
			_, err = s.Seal(ctx, a, d, Tree{Device: d.ID}, nil)
		case 8:
			_, err = s.FinishUnpack(ctx, a, d)
		case 9:
			_, err = s.Fail(ctx, a, Failure{Verdict: []string{
				"retry", "retry", "retry", "rejected", "dead",
				"vanished",
			}[r.IntN(6)], Reason: "why"})
		case 10:
			_, err = s.HandOff(ctx, a)
		case 11:
			_, err = s.Reopen(ctx, r.Int64N(4), stages[r.IntN(3)], "lost")
		case 12:
			_, err = s.Remove(ctx, a, "why")
		case 13:
			_, err = s.RemoveSnapshot(ctx, a, d)
		case 14:
			_, err = s.Resubmit(ctx, r.Int64N(4))
		}
		constraint := err != nil && strings.Contains(err.Error(), "constraint")
		if err != nil && !constraint && !errors.Is(err, ErrFenced) && !errors.Is(err, ErrOrder) &&
			!errors.Is(err, ErrNotFound) &&
			!errors.Is(err, ErrLeftovers) {
			t.Fatal(err)
		}
	}
}

// Attempts that died with the process are counted in a row; any result ends the row, and
// so does an operator who asks for the image again.
func TestCutOff(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	img, _, err := s.Enqueue(ctx, Object{Bucket: "b", Key: "images/x", ETag: "e"})
	if err != nil {
		t.Fatal(err)
	}
	if got := must[Image](t)(s.RecordCutOff(ctx, img.ID)); got.CutOffs != 0 || got.Attempt != 0 {
		t.Errorf("no attempt was under way: %+v", got.Progress)
	}
	for n := 1; n <= 3; n++ {
		must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
		if got, resumed, err := s.Resume(ctx, img.ID, "asked"); err != nil || resumed || !got.Running {
			t.Errorf("taken from under an attempt: %+v %v", got.Progress, err)
		}
		for range 2 { // the second finds its work done
			if got := must[Image](t)(s.RecordCutOff(ctx, img.ID)); got.CutOffs != n || got.Running ||
				got.Failures != 0 {
				t.Errorf("cut off %d times: %+v", n, got.Progress)
			}
		}
	}
	if got, resumed, err := s.Resume(ctx, img.ID, "asked"); err != nil || !resumed || got.CutOffs != 0 ||
		got.Stage != StageDownload {
		t.Errorf("resumed: %t %+v %v", resumed, got.Progress, err)
	}
	must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	must[Image](t)(s.RecordCutOff(ctx, img.ID))
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	if got := must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "retry", Reason: "x"})); got.CutOffs != 0 {
		t.Errorf("an attempt came to its end: %+v", got.Progress)
	}
	folds(t, s, img.ID)
}

// folds checks that the image's row is the fold of its events.
func folds(t *testing.T, s *Store, image int64) {
	t.Helper()
	img := must[Image](t)(s.Image(t.Context(), image))
	events := must[[]Event](t)(s.History(t.Context(), image))
	if p := must[Progress](t)(Fold(Progress{}, events...)); !reflect.DeepEqual(p, img.Progress) {
		t.Errorf("row %+v, fold %+v", img.Progress, p)
	}
}

// An image that waits is taken up with all that it has.
func TestResumeKeeps(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	img := run(t, s, object(1))
	tree := img.Tree.Digest
	must[Image](t)(s.Reopen(ctx, img.ID, StageDownload, "its archive was lost"))
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	must[Image](t)(s.FinishDownload(ctx, a, *img.Blob))
	got, resumed, err := s.Resume(ctx, img.ID, "asked")
	if err != nil || !resumed || got.Stage != StageUnpack || got.Blob == nil || got.Tree == nil ||
		got.Tree.Digest != tree {
		t.Errorf("resumed %t: %+v, %v", resumed, got.Progress, err)
	}
	folds(t, s, img.ID)
}

// An image that ended without a result begins anew when it is asked for again; an attempt
// that got further does not count.
func TestBeginsAnew(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	for _, end := range []State{StateRejected, StateViolation, StateSuperseded, StateVanished, StateDead} {
		img, _, err := s.Enqueue(ctx, Object{Bucket: "b", Key: "images/" + string(end), ETag: "e"})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
			if got := must[Image](t)(s.Fail(ctx, a,
				Failure{Verdict: "retry", Reason: "slow", Fetched: 1})); got.Failures != 0 {
				t.Errorf("counted although it got further: %+v", got.Progress)
			}
		}
		a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
		got := must[Image](t)(s.Fail(ctx, a, Failure{Verdict: string(end), Reason: "x", Rules: "today's"}))
		if got.State != end || got.Rules != "today's" {
			t.Errorf("%+v", got.Progress)
		}
		got = must[Image](t)(s.Reopen(ctx, img.ID, StageDownload, "again"))
		if got.State != StatePending || got.Stage != StageDownload || got.Failures != 0 || got.Rules != "" ||
			got.Attempt != a.N {
			t.Errorf("%s, asked for again: %+v", end, got.Progress)
		}
		folds(t, s, img.ID)
	}
}

// Every write transaction is told to the observer, a refused one with its error.
func TestObserveTransactions(t *testing.T) {
	s := newStore(t)
	var ends []error
	s.Observe = func(took time.Duration, _ bool, err error) {
		if took <= 0 {
			t.Errorf("took %s", took)
		}
		ends = append(ends, err)
	}
	img, _, err := s.Enqueue(t.Context(), Object{Bucket: "b", Key: "k", ETag: "e"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), img.ID+1, StageDownload); err == nil {
		t.Fatal("an attempt at no image")
	}
	if len(ends) != 2 || ends[0] != nil || !errors.Is(ends[1], ErrNotFound) {
		t.Errorf("transactions ended with %v", ends)
	}
}
