package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// ActionKind is what an Action does.
type ActionKind string

// The kinds of actions. Report alone touches nothing.
const (
	RollBack    ActionKind = "roll back"    // an unsealed device, or one of a refused image, is removed
	RollForward ActionKind = "roll forward" // a sealed device becomes ready
	MakeAgain   ActionKind = "make again"   // the pool has lost a ready device: its stage makes it again
	Reactivate  ActionKind = "reactivate"   // a snapshot is not active
	Deactivate  ActionKind = "deactivate"   // an image's device is active, and nobody works on it
	RemoveFile  ActionKind = "remove file"  // an archive, manifest or temporary file without an image
	Report      ActionKind = "report"       // something of others: left alone
	Resume      ActionKind = "resume"       // a device is suspended; before anything is compared
)

// actionKinds are all of them.
var actionKinds = []ActionKind{
	RollBack, RollForward, MakeAgain, Reactivate, Deactivate, RemoveFile, Report, Resume,
}

// label is the kind as a label of metrics.
func (k ActionKind) label() string { return strings.ReplaceAll(string(k), " ", "_") }

// Action is one difference, and what is done about it.
type Action struct {
	Kind   ActionKind `json:"do"`
	What   string     `json:"what"`
	Image  int64      `json:"image_id,omitempty"`
	Device int64      `json:"device_id,omitempty"`
	Reason string     `json:"reason"`

	leftover string // its kind, for the gauge; empty if nothing is left over
	image    store.Image
	device   store.Device
	foreign  devmapper.ID
	remove   func(context.Context) error
	unseen   error // why it could not be looked at
}

// Diff is what differs between the journal, the pool and the files.
type Diff struct {
	Actions []Action
	InHand  int // images left out, because somebody worked on them meanwhile
}

// ErrWrongPool is returned when the pool cannot be the journal's.
var ErrWrongPool = errors.New("this pool is not the one of the journal")

// Diff compares the journal with the pool and with the files, in both directions, and
// changes nothing. With alone the caller keeps everybody else from the images. Otherwise
// a difference counts only if it is there in both readings of the journal, the one before
// and the one after the look at the pool. It is an error if the pool takes no changes, or
// has none of the journal's devices: then somebody made it afresh, or put another one in
// its place.
func (r *Reconciler) Diff(ctx context.Context, alone bool) (Diff, error) {
	return r.diff(ctx, alone, r.pool.Active)
}

// diff is Diff with the active devices of somebody else.
func (r *Reconciler) diff(ctx context.Context, alone bool, active listActive) (Diff, error) {
	c, err := r.compare(ctx, alone, active)
	if err != nil {
		return Diff{}, err
	}
	return Diff{InHand: c.inHand(), Actions: slices.Concat(
		c.diffDevices(), c.diffActive(), c.diffForeign(), r.diffArchives(c), r.diffManifests(c),
		unseen("the archives", c.archivesErr), unseen("the manifests", c.manifestsErr),
	)}, nil
}

// DiffTwice is Diff beside a daemon in another process: what two Diffs agree on, a second
// apart. A daemon about to remove something has not recorded it yet.
func (r *Reconciler) DiffTwice(ctx context.Context) (Diff, error) {
	first, err := r.Diff(ctx, false)
	if err != nil || len(first.Actions) == 0 {
		return first, err
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	second, err := r.Diff(ctx, false)
	second.Actions = slices.DeleteFunc(second.Actions,
		func(a Action) bool { return !slices.ContainsFunc(first.Actions, a.equal) })
	return second, err
}

// equal reports whether two actions are about the same thing, and it has not changed.
func (a Action) equal(b Action) bool {
	return a.Kind == b.Kind && a.What == b.What && a.Reason == b.Reason &&
		a.image.UpdatedAt.Equal(b.image.UpdatedAt) && a.device.UpdatedAt.Equal(b.device.UpdatedAt)
}

// unseen reports a failed look: nothing is concluded from it.
func unseen(what string, err error) []Action {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []Action{{Kind: Report, What: what, Reason: err.Error(), unseen: err}}
}

// diffDevices compares the devices of the journal with the pool.
func (c comparison) diffDevices() []Action {
	var actions []Action
	ids := slices.Sorted(maps.Keys(c.after.devices))
	slices.Reverse(ids) // snapshots before their origins
	for _, id := range ids {
		d := c.after.devices[id]
		img := c.after.images[d.Image]
		if kind, reason := decide(img, d, c.pool); kind != "" && c.unchanged(d) {
			actions = append(actions, Action{
				Kind: kind, What: fmt.Sprintf("device %d", d.ID), Image: d.Image, Device: d.ID, Reason: reason,
				leftover: deviceLeftover(kind), image: img, device: d,
			})
		}
	}
	return actions
}

// decide is the table of recovery: what becomes of one device of the journal.
func decide(img store.Image, d store.Device, pool poolContent) (ActionKind, string) {
	id := devmapper.ID(d.ID)
	complete, active := pool.active[id]
	switch {
	case img.State == store.StateRemoved, img.State.Refused() && !provision.HandedOut(d):
		return RollBack, "its image is " + string(img.State)
	case d.State == store.DeviceSealed && pool.thins[id] && img.Tree != nil && img.Tree.Device == d.ID:
		if img.Stage != store.StageUnpack { // its archive is fetched again; the unpack finishes it
			return "", ""
		}
		return RollForward, "it was sealed"
	case d.State != store.DeviceReady:
		return RollBack, "it is " + string(d.State)
	case !pool.thins[id]:
		return MakeAgain, "the pool does not have it"
	case d.Kind == store.DeviceKindImage && active:
		return Deactivate, "an image's device is never active"
	case d.Kind == store.DeviceKindSnapshot && !complete:
		return Reactivate, "it is not active"
	}
	return "", ""
}

// deviceLeftover names what of a device is left over, if anything.
func deviceLeftover(kind ActionKind) string {
	switch kind {
	case RollBack:
		return "thin_device"
	case Deactivate:
		return "dm_device"
	}
	return ""
}

// diffActive finds active images without any device. No step of ours leaves one.
func (c comparison) diffActive() []Action {
	ready := map[int64]bool{}
	for _, d := range c.after.devices {
		ready[d.Image] = ready[d.Image] || d.State == store.DeviceReady
	}
	var actions []Action
	for _, id := range slices.Sorted(maps.Keys(c.after.images)) {
		if img := c.after.images[id]; img.State == store.StateActive && !ready[id] && c.atRest(id) {
			actions = append(actions, Action{
				Kind: MakeAgain, What: fmt.Sprintf("image %d", id), Image: id,
				Reason: "it is active and has no device", image: img,
			})
		}
	}
	return actions
}

// diffForeign finds what the pool has and the journal never had.
func (c comparison) diffForeign() []Action {
	var actions []Action
	for _, id := range slices.Sorted(maps.Keys(c.pool.thins)) {
		if !c.known(id) {
			actions = append(actions, Action{
				Kind: Report, What: fmt.Sprintf("thin device %d", id), Device: int64(id),
				Reason: "the journal does not know it", leftover: "thin_device", foreign: id,
			})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.pool.active)) {
		if !c.known(id) && !c.pool.thins[id] {
			actions = append(actions, Action{
				Kind: Deactivate, What: fmt.Sprintf("dm device of thin device %d", id), Device: int64(id),
				Reason: "neither journal nor pool know it", leftover: "dm_device", device: store.Device{ID: int64(id)},
			})
		}
	}
	return actions
}

// diffArchives finds temporary files and archives without an image.
func (r *Reconciler) diffArchives(c comparison) []Action {
	var actions []Action
	for _, name := range c.archives {
		id, ours := imageOf(name)
		img, known := c.after.images[id]
		if !ours || !known {
			why := "it is not named like an archive"
			if ours {
				why = "the journal has no such image"
			}
			actions = append(actions, Action{Kind: Report, What: "file " + name, Reason: why, leftover: "file"})
			continue
		}
		// An image claims its complete archive once it is recorded, and the part until
		// then.
		claimed := (img.Blob != nil) == (name == provision.ArchiveName(id)) && !img.State.Refused()
		if claimed || !c.atRest(id) {
			continue
		}
		a := Action{
			Kind: RemoveFile, What: "file " + name, Image: id, Reason: "no image claims it",
			leftover: "file", image: img,
			remove: func(context.Context) error { return r.archives.Remove(name) },
		}
		if img.State.Refused() {
			a.remove = func(context.Context) error { return r.host.DiscardArchive(img) }
		}
		actions = append(actions, a)
	}
	return actions
}

// diffManifests finds temporary files, and manifests without an image.
func (r *Reconciler) diffManifests(c comparison) []Action {
	used := map[string]bool{}
	for _, img := range c.after.images {
		if t := img.Tree; t != nil && !img.State.Refused() {
			used[r.host.Manifests.Name(t.Digest)] = true
		}
	}
	var actions []Action
	for _, name := range c.manifests {
		if !used[name] {
			actions = append(actions, Action{
				Kind: RemoveFile, What: "manifest " + name, Reason: "no image refers to it", leftover: "file",
				remove: func(ctx context.Context) error { return r.host.Manifests.Remove(ctx, name) },
			})
		}
	}
	return actions
}
