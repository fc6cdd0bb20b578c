package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// Do is what an Action does.
type Do string

// What brings the journal, the pool and the files into agreement. Only Report touches nothing.
const (
	RollBack    Do = "roll back"    // a device that was not sealed, or of an image that is refused, is removed
	RollForward Do = "roll forward" // a sealed device becomes ready
	MakeAgain   Do = "make again"   // the pool has lost a ready device: its image goes back to the stage that makes it
	Reactivate  Do = "reactivate"   // a snapshot is not active
	Deactivate  Do = "deactivate"   // an image's device is active, and nobody works on it
	RemoveFile  Do = "remove file"  // an archive, manifest or temporary file that no image claims
	Report      Do = "report"       // not ours: left alone
)

// Action is one disagreement, and what is done about it.
type Action struct {
	Do     Do     `json:"do"`
	What   string `json:"what"`
	Image  int64  `json:"image_id,omitempty"`
	Device int64  `json:"device_id,omitempty"`
	Reason string `json:"reason"`

	kind    string // of the leftover, for the gauge; empty: none
	image   store.Image
	device  store.Device
	foreign devmapper.ID
	remove  func() error
}

// ErrWrongPool says that the pool cannot be the one that the journal is about.
var ErrWrongPool = errors.New("this pool is not the one of the journal")

// Plan compares the journal with the pool and with the files, both ways, and changes nothing. A pool that takes no changes is an
// error, as is one that has none of the journal's devices: it was made anew, or another's data is in its place. Manifests are looked
// at only while nothing runs: one is written before the event that refers to it.
func (p *Pipeline) Plan(ctx context.Context, alone bool) ([]Action, error) {
	files, err := p.Downloader.List() // before the journal: what is made afterwards is not in the list
	if err != nil {
		return nil, err
	}
	known, err := p.deviceIDs(ctx) // before the pool is read, and again after: a device may be made or removed meanwhile
	if err != nil {
		return nil, err
	}
	truth, err := p.look()
	if err != nil {
		return nil, err
	}
	devices, err := p.Store.Devices(ctx)
	if err != nil {
		return nil, err
	}
	images, err := p.Store.Images(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[int64]store.Image{}
	for _, img := range images {
		byID[img.ID] = img
	}
	if err := p.rightPool(ctx, devices, truth); err != nil {
		return nil, err
	}
	var plan []Action
	for i := len(devices) - 1; i >= 0; i-- { // snapshots before their origins
		d := devices[i]
		known[devmapper.ID(d.ID)] = true
		if do, reason := decide(byID[d.Image], d, truth); do != "" {
			plan = append(plan, Action{
				Do: do, What: fmt.Sprintf("device %d", d.ID), Image: d.Image, Device: d.ID, Reason: reason,
				kind: deviceLeftover(do), image: byID[d.Image], device: d,
			})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(truth.thins)) {
		if !known[id] {
			plan = append(plan, Action{Do: Report, What: fmt.Sprintf("thin device %d", id), Device: int64(id), Reason: "the journal does not know it", kind: "thin_device", foreign: id})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(truth.active)) {
		if !known[id] && !truth.thins[id] {
			plan = append(plan, Action{
				Do: Deactivate, What: fmt.Sprintf("dm device of thin device %d", id), Device: int64(id), Reason: "neither journal nor pool know it",
				kind: "dm_device", device: store.Device{ID: int64(id)},
			})
		}
	}
	plan = append(plan, p.planFiles(files, byID)...)
	if !alone {
		return plan, nil
	}
	manifests, err := p.planManifests(byID)
	return append(plan, manifests...), err
}

func (p *Pipeline) deviceIDs(ctx context.Context) (map[devmapper.ID]bool, error) {
	devices, err := p.Store.Devices(ctx)
	ids := map[devmapper.ID]bool{}
	for _, d := range devices {
		ids[devmapper.ID(d.ID)] = true
	}
	return ids, err
}

// poolTruth is what the pool holds, whatever the journal says.
type poolTruth struct {
	thins  map[devmapper.ID]bool
	active map[devmapper.ID]bool // whole, under our UUIDs; false: half-created
}

// look reads the pool. One that takes no changes is an error: nothing could be rolled back.
func (p *Pipeline) look() (poolTruth, error) {
	t := poolTruth{map[devmapper.ID]bool{}, map[devmapper.ID]bool{}}
	s, err := p.Pool.Status()
	if err == nil {
		err = cannotChange(s)
	}
	if err != nil {
		return t, err
	}
	active, err := p.Pool.Active() // before the pool is read: what is active is there by then
	if err != nil {
		return t, err
	}
	for _, a := range active {
		t.active[a.ID] = !a.HalfCreated
	}
	thins, err := p.Pool.Thins()
	for _, th := range thins {
		t.thins[th.ID] = true
	}
	return t, err
}

// rightPool refuses a pool that has not one of the devices that were made since it was created.
func (p *Pipeline) rightPool(ctx context.Context, devices []store.Device, truth poolTruth) error {
	row, err := p.Store.Pool(ctx)
	if err != nil {
		return err
	}
	missing := 0
	for _, d := range devices {
		if d.State != store.Ready || d.UpdatedAt.Before(row.CreatedAt) {
			continue
		}
		if truth.thins[devmapper.ID(d.ID)] {
			return nil
		}
		missing++
	}
	if missing == 0 {
		return nil
	}
	return fmt.Errorf("%w: it has none of its %d devices; put the right %s and %s in place, or have every image made again in a new pool by `consumer pool create --replace`",
		ErrWrongPool, missing, row.Metadata, row.Data)
}

// decide is the table of recovery: what becomes of one device of the journal.
func decide(img store.Image, d store.Device, truth poolTruth) (Do, string) {
	id := devmapper.ID(d.ID)
	whole, active := truth.active[id]
	switch {
	case img.State.Refused():
		return RollBack, "its image is " + string(img.State)
	case d.State == store.Sealed && truth.thins[id]:
		return RollForward, "it was sealed"
	case d.State != store.Ready:
		return RollBack, "it is " + string(d.State)
	case !truth.thins[id]:
		return MakeAgain, "the pool does not have it"
	case d.Kind == store.ImageDevice && active:
		return Deactivate, "an image's device is never active"
	case d.Kind == store.SnapshotDevice && !whole:
		return Reactivate, "it is not active"
	}
	return "", ""
}

// deviceLeftover names what of a device is left over, if anything.
func deviceLeftover(do Do) string {
	switch do {
	case RollBack:
		return "thin_device"
	case Deactivate:
		return "dm_device"
	}
	return ""
}

// planFiles finds temporary files and archives that no image claims.
func (p *Pipeline) planFiles(names []string, images map[int64]store.Image) []Action {
	var plan []Action
	for _, name := range names {
		id, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSuffix(name, ".part"), ".tar"), 10, 64)
		img, known := images[id]
		if err != nil || !known || !strings.HasPrefix(name, blobName(id)) {
			plan = append(plan, Action{Do: Report, What: "file " + name, Reason: "it is not named like ours", kind: "file"})
			continue
		}
		if whole := img.Blob != nil; !img.State.Refused() && whole == (name == blobName(id)) { // the archive, or the part that will be one
			continue
		}
		a := Action{Do: RemoveFile, What: "file " + name, Image: id, Reason: "no image claims it", kind: "file", image: img}
		a.remove = func() error { return p.Downloader.Remove(name) }
		if img.State.Refused() {
			a.remove = func() error { return p.discardBlob(&Job{image: img}) }
		}
		plan = append(plan, a)
	}
	return plan
}
