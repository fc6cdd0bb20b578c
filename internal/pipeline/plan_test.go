package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// The table of recovery.
func TestDecide(t *testing.T) {
	truth := poolTruth{
		thins:  map[devmapper.ID]bool{1: true, 2: true, 3: true},
		active: map[devmapper.ID]bool{2: true, 3: false},
	}
	for _, c := range []struct {
		name  string
		state store.State
		stage store.Stage
		id    int64
		kind  store.DeviceKind
		of    store.DeviceState
		want  Do
	}{
		{"an image's device", store.StateActive, "", 1, store.DeviceKindImage, store.DeviceReady, ""},
		{"it is active", store.StateActive, "", 2, store.DeviceKindImage, store.DeviceReady, Deactivate},
		{"it is lost", store.StateActive, "", 4, store.DeviceKindImage, store.DeviceReady, MakeAgain},
		{"it was not sealed", store.StatePending, store.StageUnpack, 1, store.DeviceKindImage, store.DeviceFilled, RollBack},
		{"it was sealed", store.StatePending, store.StageUnpack, 1, store.DeviceKindImage, store.DeviceSealed, RollForward},
		{"it was sealed and is lost", store.StatePending, store.StageUnpack, 4, store.DeviceKindImage, store.DeviceSealed, RollBack},
		{"the archive is fetched again", store.StatePending, store.StageDownload, 1, store.DeviceKindImage, store.DeviceSealed, ""},
		{"another was sealed", store.StatePending, store.StageUnpack, 3, store.DeviceKindImage, store.DeviceSealed, RollBack},
		{"its image was given up", store.StateDead, "", 1, store.DeviceKindImage, store.DeviceReady, RollBack},
		{"its image was removed", store.StateRemoved, "", 1, store.DeviceKindImage, store.DeviceReady, RollBack},
		{"a snapshot", store.StateActive, "", 2, store.DeviceKindSnapshot, store.DeviceReady, ""},
		{"it is not active", store.StateActive, "", 1, store.DeviceKindSnapshot, store.DeviceReady, Reactivate},
		{"it is half-created", store.StateActive, "", 3, store.DeviceKindSnapshot, store.DeviceReady, Reactivate},
		{"it is lost", store.StateActive, "", 4, store.DeviceKindSnapshot, store.DeviceReady, MakeAgain},
		{"it was not handed out", store.StateDead, "", 2, store.DeviceKindSnapshot, store.DeviceCreated, RollBack},
		{"it was, and its image was given up", store.StateDead, "", 2, store.DeviceKindSnapshot, store.DeviceReady, ""},
		{"it was, and its image was refused", store.StateViolation, "", 1, store.DeviceKindSnapshot, store.DeviceReady, Reactivate},
		{"an operator removes it", store.StateActive, "", 2, store.DeviceKindSnapshot, store.DeviceDeleting, RollBack},
		{"an operator removes its image", store.StateRemoved, "", 2, store.DeviceKindSnapshot, store.DeviceReady, RollBack},
	} {
		img := store.Image{
			ID:       1,
			Progress: store.Progress{State: c.state, Stage: c.stage, Tree: &store.Tree{Device: 1}},
		}
		if do, _ := decide(img, store.Device{ID: c.id, Kind: c.kind, State: c.of}, truth); do != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.name, do, c.want)
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
		"its image went on":           {func(c *comparison) { img := active; img.UpdatedAt = late; c.after.images[1] = img }, 0},
		"its image came":              {func(c *comparison) { delete(c.before.images, 1) }, 0},
		"a job had it":                {func(c *comparison) { c.before.jobs[1] = true }, 0},
		"a job has it":                {func(c *comparison) { c.after.jobs[1] = true }, 0},
		"an attempt runs":             {func(c *comparison) { running(c, store.StatePending) }, 0},
		"a command was cut off":       {func(c *comparison) { running(c, store.StateActive) }, 1},
		"nobody works, before a run":  {func(c *comparison) { running(c, store.StatePending); c.alone = true }, 1},
		"nobody works, it is missing": {func(c *comparison) { c.alone = true }, 1},
	} {
		one := comparison{truth: poolTruth{}}
		for _, r := range []*reading{&one.before, &one.after} {
			r.devices, r.images, r.jobs = map[int64]store.Device{7: lost}, map[int64]store.Image{1: active},
				map[int64]bool{}
		}
		c.change(&one)
		if plan := one.planDevices(); len(plan) != c.want {
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

// A manifest that was written just before its seal is not taken for a leftover: whoever
// looks for leftovers waits for the seal.
func TestManifestBeforeItsSeal(t *testing.T) {
	p := newPipeline(t)
	p.cfg.ManifestDir = filepath.Join(t.TempDir(), "manifests")
	job := enqueue(t, p, 1)[0]
	if left, err := p.listManifests(); !errors.Is(err, fs.ErrNotExist) || left != nil {
		t.Errorf("before there is any: %q, %v", left, err)
	}
	written := new(archive.Manifest)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(p.cfg.ManifestDir, 0o700))
	unlock, err := p.lockManifests(syscall.LOCK_SH) // as seal does
	must(err)
	defer unlock() // twice does no harm
	must(p.saveManifest(written))
	name := filepath.Base(p.manifestPath(written.Digest()))
	listed, removed := make(chan error, 1), make(chan error, 1) // buffered: they are asked later
	go func() { _, err := p.listManifests(); listed <- err }()
	go func() { removed <- p.removeManifest(t.Context(), name) }()
	waits := time.NewTimer(50 * time.Millisecond)
	defer waits.Stop()
	select {
	case err := <-listed:
		t.Fatalf("listed before the seal is recorded: %v", err)
	case err := <-removed:
		t.Fatalf("removed before the seal is recorded: %v", err)
	case <-waits.C:
	}
	sealed(t, p, job, &store.Tree{Digest: written.Digest()})
	unlock()
	must(errors.Join(<-listed, <-removed))
	if _, err := os.Stat(p.manifestPath(written.Digest())); err != nil {
		t.Errorf("the manifest of a sealed image is gone: %v", err)
	}
	must(os.WriteFile(filepath.Join(p.cfg.ManifestDir, strings.Repeat("0", 64)), nil, 0o600))
	must(p.removeManifest(t.Context(), strings.Repeat("0", 64)))
	if left, err := p.listManifests(); err != nil || len(left) != 1 || left[0] != name {
		t.Errorf("left are %q, %v; want %s", left, err, name)
	}
}

// sealed records that the job's image has a sealed device.
func sealed(t *testing.T, p *Pipeline, job *Job, tree *store.Tree) {
	t.Helper()
	ctx := t.Context()
	steps := []func() error{
		func() error { return p.begin(ctx, job, store.StageDownload) },
		func() error { _, err := p.Store.Downloaded(ctx, job.attempt, store.Blob{Path: "p"}); return err },
		func() error { return p.begin(ctx, job, store.StageUnpack) },
		func() error {
			d, err := p.Store.Reserve(ctx, job.attempt, store.Device{Kind: store.DeviceKindImage, Bytes: 1})
			tree.Device = d.ID
			return errors.Join(err, p.advance(ctx, job, &d, store.DeviceSealed, tree))
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatal(fmt.Errorf("step %d: %w", i, err))
		}
	}
}

// An action of a plan is no longer carried out when its device has changed since.
func TestStill(t *testing.T) {
	p := newPipeline(t)
	job := enqueue(t, p, 1)[0]
	sealed(t, p, job, &store.Tree{Digest: "sha256:x"})
	devices, err := p.Store.DevicesOf(context.Background(), job.image.ID)
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	img, err := p.Store.Image(t.Context(), job.image.ID)
	if err != nil {
		t.Fatal(err)
	}
	a := Action{Do: RollForward, image: img, device: devices[0]}
	if ok, err := p.still(t.Context(), a); err != nil || !ok {
		t.Errorf("as it was: %t, %v", ok, err)
	}
	if err := p.Store.SetDevice(t.Context(), devices[0].ID, store.DeviceDeleting); err != nil {
		t.Fatal(err)
	}
	if ok, err := p.still(t.Context(), a); err != nil || ok {
		t.Errorf("it is being deleted: %t, %v", ok, err)
	}
	if err := p.Store.SetDevice(t.Context(), devices[0].ID, store.DeviceGone); err != nil {
		t.Fatal(err)
	}
	if ok, err := p.still(t.Context(), a); err != nil || ok {
		t.Errorf("it is gone: %t, %v", ok, err)
	}
}
