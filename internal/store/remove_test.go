package store

import (
	"errors"
	"reflect"
	"testing"
)

// newest is the fencing token that an operator's removal carries.
func newest(img Image) Attempt { return Attempt{Image: img.ID, N: img.Attempt} }

// What an operator removed stays removed: whatever else is told of it is refused, until
// it is submitted again.
func TestRemove(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	cutOff := must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate)) // as a further snapshot whose process died
	if _, err := s.Remove(ctx, newest(img), "by hand"); !errors.Is(err, ErrFenced) {
		t.Errorf("removed although somebody was at it since: %v, want ErrFenced", err)
	}
	img = must[Image](t)(s.Image(ctx, img.ID))
	img = must[Image](t)(s.Remove(ctx, newest(img), "by hand"))
	if want := (Progress{State: StateRemoved, Attempt: cutOff.N, Reason: "by hand"}); !reflect.DeepEqual(img.Progress,
		want) || !img.State.Refused() {
		t.Errorf("removed: %+v, want %+v", img.Progress, want)
	}
	if again, created, err := s.Enqueue(ctx, img.Object); err != nil || created || again.State != StateRemoved {
		t.Errorf("a further message: %+v, created %t, %v", again.Progress, created, err)
	}
	for what, write := range map[string]func() error{
		"Begin":    func() error { _, err := s.Begin(ctx, img.ID, StageDownload); return err },
		"Snapshot": func() error { _, err := s.Begin(ctx, img.ID, StageActivate); return err },
		"Reopen":   func() error { _, err := s.Reopen(ctx, img.ID, StageDownload, "lost"); return err },
		"Remove":   func() error { _, err := s.Remove(ctx, newest(img), "by hand"); return err },
		"Reserve": func() error {
			_, err := s.Reserve(ctx, cutOff, Device{Kind: DeviceKindSnapshot, Bytes: 1, Origin: 1})
			return err
		},
	} {
		if err := write(); !errors.Is(err, ErrOrder) && !errors.Is(err, ErrFenced) {
			t.Errorf("%s of a removed image: %v", what, err)
		}
	}
	if _, err := s.Resubmit(ctx, img.ID); !errors.Is(err, ErrLeftovers) {
		t.Errorf("submitted again with its devices still there: %v, want ErrLeftovers", err)
	}
	for _, d := range must[[]Device](t)(s.DevicesOf(ctx, img.ID)) {
		if err := s.SetDeviceState(ctx, d.ID, DeviceGone); err != nil {
			t.Fatal(err)
		}
	}
	img = must[Image](t)(s.Resubmit(ctx, img.ID))
	want := Progress{State: StatePending, Stage: StageDownload, Attempt: cutOff.N}
	if !reflect.DeepEqual(img.Progress, want) {
		t.Errorf("submitted again: %+v, want %+v", img.Progress, want)
	}
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	if _, err := s.Remove(ctx, a, "by hand"); !errors.Is(err, ErrOrder) {
		t.Errorf("removed while an attempt is under way: %v, want ErrOrder", err)
	}
	must[Image](t)(s.RecordCutOff(ctx, img.ID))
	if img = must[Image](t)(s.Remove(ctx, a, "by hand")); img.State != StateRemoved || img.CutOffs != 0 {
		t.Errorf("removed while nobody works on it: %+v", img.Progress)
	}
}

// A snapshot is removed without a change to its image, and known afterwards.
func TestRemoveSnapshot(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	sn := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID))[0]
	for _, found := range []Snapshot{
		must[Snapshot](t)(s.SnapshotByID(ctx, sn.Device)),
		must[Snapshot](t)(s.SnapshotByPath(ctx, sn.Path)),
	} {
		if found != sn {
			t.Errorf("found %+v, want %+v", found, sn)
		}
	}
	after := must[Image](t)(s.RemoveSnapshot(ctx, newest(img),
		Device{ID: sn.Device, Image: img.ID, Kind: DeviceKindSnapshot}))
	if !reflect.DeepEqual(after.Progress, img.Progress) {
		t.Errorf("image changed from %+v to %+v", img.Progress, after.Progress)
	}
	if left := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID)); len(left) != 0 {
		t.Errorf("snapshots left: %+v", left)
	}
	if d := must[[]Device](t)(s.DevicesOf(ctx, img.ID)); len(d) != 2 || d[1].State != DeviceDeleting {
		t.Errorf("devices: %+v, want the second to be deleting", d)
	}
	if gone := must[Snapshot](t)(s.SnapshotByID(ctx, sn.Device)); gone.State != "gone" {
		t.Errorf("the snapshot is %s", gone.State)
	}
	if _, err := s.SnapshotByID(ctx, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("a snapshot that never was: %v, want ErrNotFound", err)
	}
}

// An image that was given up, or removed, and then asked for again is taken up without a
// message and without a restart.
func TestNeverAttemptedAgain(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img, _, err := s.Enqueue(ctx, object(1))
	if err != nil {
		t.Fatal(err)
	}
	for what, again := range map[string]func() (Image, error){
		"reopened":    func() (Image, error) { return s.Reopen(ctx, img.ID, StageDownload, "submitted again") },
		"resubmitted": func() (Image, error) { return s.Resubmit(ctx, img.ID) },
	} {
		a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
		img = must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "dead", Reason: "why"}))
		if what == "resubmitted" {
			must[Image](t)(s.Remove(ctx, newest(img), ""))
		}
		if list := must[[]Image](t)(s.NeverAttempted(ctx)); len(list) != 0 {
			t.Errorf("untouched before it is %s: %+v", what, list)
		}
		must[Image](t)(again())
		if list := must[[]Image](t)(s.NeverAttempted(ctx)); len(list) != 1 {
			t.Errorf("not untouched after it was %s: %+v", what, list)
		}
	}
}
