package store

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
)

func somePool() Pool {
	return Pool{
		UUID: "0b7cf2ea-3d4b-4f0a-9f0e-7b7d1f4a2c11", Name: "images", Data: "/d", Metadata: "/m",
		BlockSize: 65536,
	}
}

// someRebuilt are an image with two snapshots, one without a snapshot, and one without
// its archive.
func someRebuilt() []RebuiltImage {
	blob := &Blob{Path: "/blobs/2.tar", SHA256: someSeal(2).ArchiveSHA256, Size: 10240, Inode: 7}
	return []RebuiltImage{
		{
			Seal: someSeal(2), Blob: blob,
			Snapshots: []Snapshot{{Device: 21, Path: "/dev/mapper/x-21"}, {Device: 23, Path: "/dev/mapper/x-23"}},
		},
		{Seal: someSeal(4), Blob: blob},
		{Seal: someSeal(5), Snapshots: []Snapshot{{Device: 51, Path: "/dev/mapper/x-51"}}},
	}
}

// A rebuilt journal is one: rows are the fold of the events, every prefix folds, and
// everything has the id that it had.
func TestRebuild(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	if err := s.Rebuild(ctx, somePool(), someRebuilt(), MaxIDs{Device: 99, Image: 7}); err != nil {
		t.Fatal(err)
	}
	if p := must[Pool](t)(s.Pool(ctx)); p.State != "ready" || p.UUID != somePool().UUID || p.BlockSize != 65536 {
		t.Errorf("pool %+v", p)
	}
	images := must[[]Image](t)(s.Images(ctx))
	for i, want := range []struct {
		id    int64
		state State
		stage Stage
		blob  bool
	}{{2, StateActive, "", true}, {4, StatePending, StageActivate, true}, {5, StateActive, "", false}} {
		img, seal := images[i], someSeal(want.id)
		if img.ID != want.id || img.State != want.state || img.Stage != want.stage || (img.Blob != nil) != want.blob ||
			img.Running ||
			!reflect.DeepEqual(*img.Tree, seal.Tree()) || img.Object != seal.Object() ||
			!img.CreatedAt.Equal(seal.CreatedAt) {
			t.Errorf("image %+v, want %+v", img, want)
		}
		events := must[[]Event](t)(s.History(ctx, img.ID))
		checkTraceID(t, img, events[0])
		for n := range events {
			if _, err := Fold(Progress{}, events[:n]...); err != nil {
				t.Fatalf("prefix %d: %v", n, err)
			}
			if events[n].Reason != rebuiltReason {
				t.Errorf("event %d does not say where it comes from: %+v", n, events[n])
			}
		}
		if p := must[Progress](t)(Fold(Progress{}, events...)); !reflect.DeepEqual(p, img.Progress) {
			t.Errorf("fold %+v\nrow  %+v", p, img.Progress)
		}
	}
	var devices []string
	for _, d := range must[[]Device](t)(s.Devices(ctx)) {
		devices = append(devices, fmt.Sprintf("%d of %d %s %s origin %d %d",
			d.ID, d.Image, d.Kind, d.State, d.Origin, d.Bytes>>20))
	}
	if want := []string{
		"20 of 2 image ready origin 0 256", "21 of 2 snapshot ready origin 20 256",
		"23 of 2 snapshot ready origin 20 256",
		"40 of 4 image ready origin 0 256", "50 of 5 image ready origin 0 256", "51 of 5 snapshot ready origin 50 256",
	}; !reflect.DeepEqual(devices, want) {
		t.Errorf("devices %q", devices)
	}
	if sn := must[[]Snapshot](t)(s.Snapshots(ctx)); len(sn) != 3 || sn[1].Path != "/dev/mapper/x-23" ||
		sn[1].Image != 2 {
		t.Errorf("snapshots %+v", sn)
	}
}

// What comes after a rebuild has new ids, and finds the images by the identity of their
// objects.
func TestAfterRebuild(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	if err := s.Rebuild(ctx, somePool(), someRebuilt(), MaxIDs{Device: 99, Image: 7}); err != nil {
		t.Fatal(err)
	}
	if img, created, err := s.Enqueue(ctx, someSeal(4).Object()); err != nil || created || img.ID != 4 {
		t.Errorf("told again: image %d, created %t, %v", img.ID, created, err)
	}
	if img := run(t, s, object(1)); img.ID != 8 || img.Tree.Device != 100 {
		t.Errorf("the next image is %d on device %d, want 8 on 100", img.ID, img.Tree.Device)
	}
	a := must[Attempt](t)(s.Begin(ctx, 4, StageActivate))
	d := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindSnapshot, Bytes: 1 << 20, Origin: 40}))
	if img := must[Image](t)(s.FinishActivate(ctx, a, d, s.now(), "/p")); img.State != StateActive || d.ID <= 100 {
		t.Errorf("%+v on device %d", img.Progress, d.ID)
	}
}

// An empty pool makes a database that starts behind what is taken; all or nothing; never
// into one that holds anything.
func TestRebuildIsAllOrNothing(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	twice := append(someRebuilt(), RebuiltImage{Seal: someSeal(9), Snapshots: []Snapshot{{Device: 21, Path: "/p"}}})
	if err := s.Rebuild(ctx, somePool(), twice, MaxIDs{}); err == nil {
		t.Error("a device of two images was taken")
	}
	if _, err := s.Pool(ctx); !errors.Is(err, ErrNotFound) || len(must[[]Image](t)(s.Images(ctx))) != 0 {
		t.Errorf("a rebuild that failed left something: %v", err)
	}
	if err := s.Rebuild(ctx, somePool(), nil, MaxIDs{Device: 3, Image: 2}); err != nil {
		t.Fatal(err)
	}
	if img := run(t, s, object(1)); img.ID != 3 || img.Tree.Device != 4 {
		t.Errorf("image %d on device %d, want 3 on 4", img.ID, img.Tree.Device)
	}
	if err := s.Rebuild(ctx, somePool(), someRebuilt(), MaxIDs{}); !errors.Is(err, ErrOrder) {
		t.Errorf("into a database that is in use: %v, want ErrOrder", err)
	}
}
