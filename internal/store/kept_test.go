package store

import (
	"errors"
	"testing"
)

// lost takes an active image to where every part of it is lost but its snapshots, and the
// object cannot be had.
func lost(t *testing.T, s *Store, img Image) Image {
	t.Helper()
	must[Image](t)(s.RecordLoss(t.Context(), own(t, s, img), "the pool does not have it"))
	must[Image](t)(s.Reopen(t.Context(), img.ID, StageDownload, "archive is gone"))
	a := must[Attempt](t)(s.Begin(t.Context(), img.ID, StageDownload))
	return must[Image](t)(s.Fail(t.Context(), a, Failure{Verdict: "vanished", Reason: "object is gone"}))
}

// own is the image's own device.
func own(t *testing.T, s *Store, img Image) Device {
	t.Helper()
	for _, d := range must[[]Device](t)(s.DevicesOf(t.Context(), img.ID)) {
		if d.ID == img.Tree.Device {
			return d
		}
	}
	t.Fatal("it has no device")
	return Device{}
}

// Whatever becomes of its image, a snapshot that was handed out stays, and so does the
// state that says so; what is missing is named.
func TestHandedOutStaysActive(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := lost(t, s, run(t, s, object(1)))
	if img.State != StateActive || img.Tree != nil || img.Reason != "its own device is missing: object is gone" {
		t.Errorf("%+v, want it active, without a device of its own", img.Progress)
	}
	snapshots := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID))
	if len(snapshots) != 1 {
		t.Fatalf("snapshots: %+v", snapshots)
	}
	if err := s.SetDeviceState(ctx, snapshots[0].Device, DeviceDeleting); !errors.Is(err, ErrHandedOut) {
		t.Errorf("removed without an operator: %v, want ErrHandedOut", err)
	}
	must[Image](t)(s.Reopen(ctx, img.ID, StageActivate, "a snapshot is not active"))
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	if now := must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "retry", Reason: "in use"})); now.State != StatePending ||
		now.Failures != 1 {
		t.Errorf("failed once more: %+v, want its failures counted anew", now.Progress)
	}
	a = must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	if now := must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "dead", Reason: "in use"})); now.State != StateActive {
		t.Errorf("given up: %+v", now.Progress)
	}
	must[Image](t)(s.Remove(ctx, Attempt{Image: img.ID, N: a.N}, "by hand"))
	if err := s.SetDeviceState(ctx, snapshots[0].Device, DeviceDeleting); err != nil {
		t.Errorf("removed by an operator: %v", err)
	}
}

// A snapshot that the pool has lost is lost in the journal with the event that says so.
// If it was the last part, the image is not active.
func TestRecordLoss(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	sn := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID))[0]
	now := must[Image](t)(s.RecordLoss(ctx, Device{ID: sn.Device, Image: img.ID, Kind: DeviceKindSnapshot}, "lost"))
	if now.State != StatePending || now.Stage != StageActivate || now.Tree == nil {
		t.Errorf("%+v, want it pending at activate", now.Progress)
	}
	if left := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID)); len(left) != 0 {
		t.Errorf("snapshots left: %+v", left)
	}
	if d := must[[]Device](t)(s.DevicesOf(ctx, img.ID)); len(d) != 1 || d[0].Kind != DeviceKindImage {
		t.Errorf("devices left: %+v", d)
	}
	if now = lost(t, s, now); now.State != StateVanished || now.Tree != nil {
		t.Errorf("with nothing left: %+v", now.Progress)
	}
}

// An image that was sealed, given up and so dropped is asked for again when its object is
// gone: it is not active, for it has no device.
func TestNotActiveWithoutADevice(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	sn := must[[]Snapshot](t)(s.SnapshotsOf(ctx, img.ID))[0]
	must[Image](t)(s.RecordLoss(ctx, Device{ID: sn.Device, Image: img.ID, Kind: DeviceKindSnapshot}, "lost"))
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	if img = must[Image](t)(s.Fail(ctx, a, Failure{Verdict: "dead", Reason: "no room"})); img.State != StateDead ||
		img.Tree != nil {
		t.Errorf("given up: %+v, want its tree to go with its device", img.Progress)
	}
	must[Image](t)(s.Reopen(ctx, img.ID, StageDownload, "asked for again"))
	a = must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
	if img = must[Image](t)(s.Fail(ctx, a,
		Failure{Verdict: "vanished", Reason: "object is gone"})); img.State != StateVanished {
		t.Errorf("%+v", img.Progress)
	}
}

// An image that has its device is reopened at unpack: refused, for there cannot be two.
// Once the device is lost it is made again.
func TestReopenedAtUnpackWithItsDevice(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := run(t, s, object(1))
	if _, err := s.Reopen(ctx, img.ID, StageUnpack, "reading the devices failed once"); !errors.Is(err, ErrOrder) {
		t.Errorf("%v, want ErrOrder", err)
	}
	must[Image](t)(s.RecordLoss(ctx, own(t, s, img), "lost"))
	a := must[Attempt](t)(s.Begin(ctx, img.ID, StageUnpack))
	d := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindImage, Bytes: 1 << 20, FSUUID: "u"}))
	d = must[Device](t)(s.Seal(ctx, a, d, Tree{Device: d.ID}, nil))
	must[Image](t)(s.FinishUnpack(ctx, a, d))
}
