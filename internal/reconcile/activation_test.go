package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// handedOut makes an active image, and returns the action for its inactive snapshot.
func handedOut(t *testing.T, r *Reconciler, key string) Action {
	t.Helper()
	ctx := t.Context()
	img, _, err := r.store.Enqueue(ctx, store.Object{Bucket: "b", Key: key, ETag: "e"})
	check(t, err)
	var d store.Device
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		a, err := r.store.Begin(ctx, img.ID, st)
		check(t, err)
		switch st {
		case store.StageDownload:
			_, err = r.store.FinishDownload(ctx, a, store.Blob{Path: key})
		case store.StageUnpack:
			d, err = r.store.Reserve(ctx, a, store.Device{Kind: store.DeviceKindImage, Bytes: 1})
			check(t, err)
			_, err = r.store.Seal(ctx, a, d, store.Tree{Device: d.ID, Digest: "sha256:x"}, nil)
			check(t, err)
			_, err = r.store.FinishUnpack(ctx, a, d)
		case store.StageActivate:
			d, err = r.store.Reserve(ctx, a, store.Device{Kind: store.DeviceKindSnapshot, Bytes: 1, Origin: d.ID})
			check(t, err)
			img, err = r.store.FinishActivate(ctx, a, d, time.Now(), "/dev/mapper/"+key)
		}
		check(t, err)
	}
	return Action{
		Kind: Reactivate, What: fmt.Sprintf("device %d", d.ID), Image: img.ID, Device: d.ID, image: img, device: d,
	}
}

// activationOf returns one for n images. It notes which snapshots it tries.
func activationOf(t *testing.T, n int, left ...Problem) (a *Activation, actions []Action, tried func() []int64) {
	t.Helper()
	r := newReconciler(t)
	for i := range n {
		actions = append(actions, handedOut(t, r, fmt.Sprintf("images/%d.tar", i)))
	}
	a = r.newActivation(append([]Action{{Kind: RollBack}}, actions...), left)
	var mu sync.Mutex
	var ids []int64
	a.try = func(_ context.Context, act Action) error {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, act.Device)
		return nil
	}
	return a, actions, func() []int64 {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ids)
	}
}

// alone keeps nobody out.
func alone(_ context.Context, do func() error) error { return do() }

func devicesOf(actions []Action) (ids []int64) {
	for _, act := range actions {
		ids = append(ids, act.Device)
	}
	return ids
}

// Each snapshot is activated once: by who needs it, or in its turn.
func TestActivatedOnce(t *testing.T) {
	a, actions, tried := activationOf(t, 3)
	if done, total := a.Progress(); done != 0 || total != 3 {
		t.Errorf("%d of %d before it began, want 0 of 3", done, total)
	}
	a.Of(t.Context(), actions[2].Image)
	a.Of(t.Context(), actions[2].Image)
	a.Of(t.Context(), 4711)
	if done, _ := a.Progress(); done != 1 || testutil.ToFloat64(a.r.metrics.toActivate) != 2 {
		t.Errorf("%d are done, want 1", done)
	}
	check(t, a.Run(t.Context(), alone))
	want := []int64{actions[2].Device, actions[0].Device, actions[1].Device}
	if got := tried(); !slices.Equal(got, want) {
		t.Errorf("tried %d, want %d", got, want)
	}
	if done, total := a.Progress(); done != total || a.Err() != nil || testutil.ToFloat64(a.r.metrics.toActivate) != 0 {
		t.Errorf("%d of %d in the end, %v", done, total, a.Err())
	}
	if testutil.ToFloat64(a.r.metrics.success) == 0 {
		t.Error("no success, although nothing is left")
	}
}

// Who needs a snapshot that is just being activated waits until it is.
func TestActivationIsAwaited(t *testing.T) {
	a, actions, _ := activationOf(t, 1)
	begun, release, active := make(chan struct{}), make(chan struct{}), false
	a.try = func(context.Context, Action) error {
		close(begun)
		<-release
		active = true
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { check(t, a.Run(t.Context(), alone)) })
	<-begun
	if done, _ := a.Progress(); done != 0 {
		t.Error("it is done before it is active")
	}
	needed := make(chan struct{})
	wg.Go(func() {
		close(needed)
		a.Of(t.Context(), actions[0].Image)
		if !active {
			t.Error("it did not wait")
		}
	})
	<-needed
	close(release)
	wg.Wait()
}

// What cannot be activated is a problem, and does not keep the others. What the start
// left counts as well.
func TestActivationFails(t *testing.T) {
	a, actions, tried := activationOf(t, 3, problemOf(Action{Kind: RollBack}, devmapper.ErrBusy))
	try := a.try
	a.try = func(ctx context.Context, act Action) error {
		if act.Device == actions[1].Device {
			return devmapper.ErrForeign
		}
		return try(ctx, act)
	}
	check(t, a.Run(t.Context(), alone))
	if got := tried(); len(got) != 2 {
		t.Errorf("tried %d, want the two others", got)
	}
	if err := a.Err(); !errors.Is(err, devmapper.ErrForeign) || !errors.Is(err, devmapper.ErrBusy) {
		t.Errorf("left: %v", err)
	}
	if n := testutil.ToFloat64(a.r.metrics.problems); n != 2 || testutil.ToFloat64(a.r.metrics.success) != 0 {
		t.Errorf("%g problems, want 2 and no success", n)
	}
}

// What was removed since it was found is left alone, and what cannot be looked up is a
// problem.
func TestActivationOfRemoved(t *testing.T) {
	a, actions, tried := activationOf(t, 3)
	ctx := t.Context()
	_, err := a.r.store.Remove(ctx, store.Attempt{Image: actions[0].Image, N: actions[0].image.Attempt}, "test")
	check(t, err)
	_, err = a.r.store.RemoveSnapshot(ctx, store.Attempt{Image: actions[1].Image, N: actions[1].image.Attempt},
		actions[1].device)
	check(t, err)
	unknown := Action{Kind: Reactivate, Image: 4711, Device: 4711}
	a.order = append(a.order, &inactive{image: 4711, actions: []Action{unknown}})
	check(t, a.Run(ctx, alone))
	if got := tried(); !slices.Equal(got, devicesOf(actions[2:])) {
		t.Errorf("tried %d, want %d alone", got, devicesOf(actions[2:]))
	}
	if err := a.Err(); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("left: %v", err)
	}
}

// A stop ends it after the snapshot in hand; the rest is left to the next start. If the
// pool cannot be had, it can be run again.
func TestActivationStops(t *testing.T) {
	a, _, tried := activationOf(t, 3)
	held := func(context.Context, func() error) error { return devmapper.ErrBusy }
	if err := a.Run(t.Context(), held); !errors.Is(err, devmapper.ErrBusy) || len(tried()) > 0 {
		t.Fatalf("%v, tried %d", err, tried())
	}
	ctx, stop := context.WithCancel(t.Context())
	try := a.try
	a.try = func(ctx context.Context, act Action) error {
		stop()
		return try(ctx, act)
	}
	if err := a.Run(ctx, alone); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the stop", err)
	}
	if got := tried(); len(got) != 1 {
		t.Errorf("tried %d after a stop", got)
	}
	check(t, a.Run(t.Context(), alone))
	if got := tried(); len(got) != 3 {
		t.Errorf("tried %d in the end, want all", got)
	}
}
