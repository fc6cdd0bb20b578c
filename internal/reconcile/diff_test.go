package reconcile

import (
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// The table of recovery.
func TestDecide(t *testing.T) {
	pool := poolContent{
		thins:  map[devmapper.ID]bool{1: true, 2: true, 3: true},
		active: map[devmapper.ID]bool{2: true, 3: false},
	}
	image, snapshot := store.DeviceKindImage, store.DeviceKindSnapshot
	for _, c := range []struct {
		name     string
		state    store.State
		stage    store.Stage
		id       int64
		kind     store.DeviceKind
		deviceIs store.DeviceState
		want     ActionKind
	}{
		{
			name: "an image's device", state: store.StateActive,
			id: 1, kind: image, deviceIs: store.DeviceReady,
		},
		{
			name: "it is active", state: store.StateActive,
			id: 2, kind: image, deviceIs: store.DeviceReady, want: Deactivate,
		},
		{
			name: "it is lost", state: store.StateActive,
			id: 4, kind: image, deviceIs: store.DeviceReady, want: MakeAgain,
		},
		{
			name: "it was not sealed", state: store.StatePending, stage: store.StageUnpack,
			id: 1, kind: image, deviceIs: store.DeviceFilled, want: RollBack,
		},
		{
			name: "it was sealed", state: store.StatePending, stage: store.StageUnpack,
			id: 1, kind: image, deviceIs: store.DeviceSealed, want: RollForward,
		},
		{
			name: "it was sealed and is lost", state: store.StatePending, stage: store.StageUnpack,
			id: 4, kind: image, deviceIs: store.DeviceSealed, want: RollBack,
		},
		{
			name: "the archive is fetched again", state: store.StatePending, stage: store.StageDownload,
			id: 1, kind: image, deviceIs: store.DeviceSealed,
		},
		{
			name: "another was sealed", state: store.StatePending, stage: store.StageUnpack,
			id: 3, kind: image, deviceIs: store.DeviceSealed, want: RollBack,
		},
		{
			name: "its image was given up", state: store.StateDead,
			id: 1, kind: image, deviceIs: store.DeviceReady, want: RollBack,
		},
		{
			name: "its image was removed", state: store.StateRemoved,
			id: 1, kind: image, deviceIs: store.DeviceReady, want: RollBack,
		},
		{
			name: "a snapshot", state: store.StateActive,
			id: 2, kind: snapshot, deviceIs: store.DeviceReady,
		},
		{
			name: "it is not active", state: store.StateActive,
			id: 1, kind: snapshot, deviceIs: store.DeviceReady, want: Reactivate,
		},
		{
			name: "it is half-created", state: store.StateActive,
			id: 3, kind: snapshot, deviceIs: store.DeviceReady, want: Reactivate,
		},
		{
			name: "it is lost", state: store.StateActive,
			id: 4, kind: snapshot, deviceIs: store.DeviceReady, want: MakeAgain,
		},
		{
			name: "it was not handed out", state: store.StateDead,
			id: 2, kind: snapshot, deviceIs: store.DeviceCreated, want: RollBack,
		},
		{
			name: "it was, and its image was given up", state: store.StateDead,
			id: 2, kind: snapshot, deviceIs: store.DeviceReady,
		},
		{
			name: "it was, and its image was refused", state: store.StateViolation,
			id: 1, kind: snapshot, deviceIs: store.DeviceReady, want: Reactivate,
		},
		{
			name: "an operator removes it", state: store.StateActive,
			id: 2, kind: snapshot, deviceIs: store.DeviceDeleting, want: RollBack,
		},
		{
			name: "an operator removes its image", state: store.StateRemoved,
			id: 2, kind: snapshot, deviceIs: store.DeviceReady, want: RollBack,
		},
	} {
		img := store.Image{
			ID:       1,
			Progress: store.Progress{State: c.state, Stage: c.stage, Tree: &store.Tree{Device: 1}},
		}
		if kind, _ := decide(img, store.Device{ID: c.id, Kind: c.kind, State: c.deviceIs}, pool); kind != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.name, kind, c.want)
		}
	}
}

// What was otherwise at the first reading, or is otherwise after the last, or was worked
// on in between, is no difference: the pool was read at another moment.
func TestTwoReadings(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	lost := store.Device{ID: 7, Image: 1, Kind: store.DeviceKindSnapshot, State: store.DeviceReady, UpdatedAt: early}
	active := store.Image{ID: 1, UpdatedAt: early, Progress: store.Progress{State: store.StateActive}}
	for name, c := range map[string]struct {
		change func(c *comparison)
		want   int
	}{
		"the same":    {func(*comparison) {}, 1},
		"made since":  {func(c *comparison) { delete(c.before.devices, 7) }, 0},
		"gone since":  {func(c *comparison) { delete(c.after.devices, 7) }, 0},
		"ready since": {func(c *comparison) { d := lost; d.State = store.DeviceCreated; c.before.devices[7] = d }, 0},
		"written since": {
			func(c *comparison) { d := lost; d.UpdatedAt = late; c.after.devices[7] = d },
			0,
		},
		"its image went on": {
			func(c *comparison) { img := active; img.UpdatedAt = late; c.after.images[1] = img },
			0,
		},
		"its image came":              {func(c *comparison) { delete(c.before.images, 1) }, 0},
		"a job had it":                {func(c *comparison) { c.before.jobs[1] = true }, 0},
		"a job has it":                {func(c *comparison) { c.after.jobs[1] = true }, 0},
		"an attempt runs":             {func(c *comparison) { running(c, store.StatePending) }, 0},
		"a command was cut off":       {func(c *comparison) { running(c, store.StateActive) }, 1},
		"nobody works, before a run":  {func(c *comparison) { running(c, store.StatePending); c.alone = true }, 1},
		"nobody works, it is missing": {func(c *comparison) { c.alone = true }, 1},
	} {
		one := comparison{}
		for _, r := range []*reading{&one.before, &one.after} {
			r.devices, r.images, r.jobs = map[int64]store.Device{7: lost}, map[int64]store.Image{1: active},
				map[int64]bool{}
		}
		c.change(&one)
		if plan := one.diffDevices(); len(plan) != c.want {
			t.Errorf("%s: %+v, want %d", name, plan, c.want)
		}
	}
}

// running makes the image one whose attempt has begun and not ended.
func running(c *comparison, state store.State) {
	for _, images := range []map[int64]store.Image{c.before.images, c.after.images} {
		img := images[1]
		img.State, img.Running = state, true
		images[1] = img
	}
}

// An action is no longer carried out if its device has changed since.
func TestStillApplies(t *testing.T) {
	r := newReconciler(t)
	img, d := sealed(t, r)
	a := Action{Kind: RollForward, image: img, device: d}
	for i, state := range []store.DeviceState{store.DeviceSealed, store.DeviceDeleting, store.DeviceGone} {
		if i > 0 {
			check(t, r.store.SetDeviceState(t.Context(), d.ID, state))
		}
		if ok, err := r.stillApplies(t.Context(), a); err != nil || ok != (i == 0) {
			t.Errorf("the device is %s: %t, %v", state, ok, err)
		}
	}
}

// sealed makes an image with a sealed device.
func sealed(t *testing.T, r *Reconciler) (store.Image, store.Device) {
	t.Helper()
	ctx := t.Context()
	img, _, err := r.store.Enqueue(ctx, store.Object{Bucket: "b", Key: "images/a.tar", ETag: "e"})
	check(t, err)
	a, err := r.store.Begin(ctx, img.ID, store.StageDownload)
	check(t, err)
	_, err = r.store.FinishDownload(ctx, a, store.Blob{Path: "p"})
	check(t, err)
	a, err = r.store.Begin(ctx, img.ID, store.StageUnpack)
	check(t, err)
	d, err := r.store.Reserve(ctx, a, store.Device{Kind: store.DeviceKindImage, Bytes: 1})
	check(t, err)
	_, err = r.store.Seal(ctx, a, d, store.Tree{Device: d.ID, Digest: "sha256:x"}, nil)
	check(t, err)
	img, err = r.store.Image(ctx, img.ID)
	check(t, err)
	devices, err := r.store.DevicesOf(ctx, img.ID)
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	return img, devices[0]
}

// After an action, an image goes on as before. Only what was lost is made again at once,
// and no image is taken up without its message that was not before.
func TestOutcomeOf(t *testing.T) {
	pending, active, gone := store.Image{}, store.Image{}, store.Image{}
	pending.State, active.State, gone.State = store.StatePending, store.StateActive, store.StateVanished
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		kind          ActionKind
		before, after store.Image
		due           time.Time
		err           error
		stale         bool
		want          Outcome
		now           bool
	}{
		"no longer applies":   {kind: Reactivate, before: active, after: active, stale: true},
		"terminal":            {kind: Reactivate, before: active, after: active, want: Outcome{Whole: true}},
		"ended, asked again":  {kind: RollBack, before: gone, after: gone},
		"lost":                {kind: MakeAgain, before: active, after: pending, now: true},
		"rolled forward":      {kind: RollForward, before: pending, after: pending, now: true},
		"waits for a message": {kind: RollBack, before: pending, after: pending},
		"waits for its time":  {kind: RollBack, before: pending, after: pending, due: later, want: Outcome{Due: later}},
		"failed":              {kind: Reactivate, before: active, after: active, err: provision.ErrResultLost},
	} {
		got := outcomeOf(Action{Kind: c.kind}, applied{!c.stale, c.before, c.after, c.err}, c.due)
		if c.now && (got.Whole || time.Since(got.Due).Abs() > time.Minute) || !c.now && got != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
