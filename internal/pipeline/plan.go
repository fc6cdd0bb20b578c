package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/store"
)

// Do is what an Action does.
type Do string

// What brings the journal, the pool and the files into agreement. Only Report touches
// nothing.
const (
	RollBack    Do = "roll back"    // a device that was not sealed, or of an image that is refused, is removed
	RollForward Do = "roll forward" // a sealed device becomes ready
	MakeAgain   Do = "make again"   // the pool has lost a ready device: its image goes back to the stage that makes it
	Reactivate  Do = "reactivate"   // a snapshot is not active
	Deactivate  Do = "deactivate"   // an image's device is active, and nobody works on it
	RemoveFile  Do = "remove file"  // an archive, manifest or temporary file that no image claims
	Report      Do = "report"       // not ours: left alone
	Resume      Do = "resume"       // a device is suspended; before anything is compared
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
	remove  func(context.Context) error
	unseen  error // it could not be looked at
}

// Plan is what differs between the journal, the pool and the files.
type Plan struct {
	Actions []Action
	InHand  int // images that were left out, because they were worked on meanwhile
}

// ErrWrongPool says that the pool cannot be the one that the journal is about.
var ErrWrongPool = errors.New("this pool is not the one of the journal")

// Plan compares the journal with the pool and with the files, both ways, and changes
// nothing. alone says that nobody works on the images. Otherwise only that differs which
// was so before the first reading and still is after the last: two readings at two
// moments are no difference. A pool that takes no changes is an error, as is one that has
// none of the journal's devices: it was made anew, or another's data is in its place.
func (p *Pipeline) Plan(ctx context.Context, alone bool) (Plan, error) {
	before, err := p.read(ctx)
	if err != nil {
		return Plan{}, err
	}
	archives, archivesErr := p.Downloader.List()
	manifests, manifestsErr := p.listManifests()
	truth, err := p.look()
	if err != nil {
		return Plan{}, err
	}
	if !alone {
		failpoint.Here("between", "readings")
	}
	after, err := p.read(ctx)
	if err != nil {
		return Plan{}, err
	}
	c := comparison{alone: alone, before: before, after: after, truth: truth}
	if err := p.rightPool(ctx, c); err != nil {
		return Plan{}, err
	}
	return Plan{InHand: c.inHand(), Actions: slices.Concat(
		c.planDevices(), c.planLost(), c.planForeign(), p.planFiles(archives, c), p.planManifests(manifests, c),
		unseen("the archives", archivesErr), unseen("the manifests", manifestsErr),
	)}, nil
}

// PlanTwice is Plan beside a daemon that is another process: what is the same in two
// plans a second apart. A daemon that is about to remove something has not recorded that
// it is.
func (p *Pipeline) PlanTwice(ctx context.Context) (Plan, error) {
	first, err := p.Plan(ctx, false)
	if err != nil || len(first.Actions) == 0 {
		return first, err
	}
	wait(ctx, time.Second)
	second, err := p.Plan(ctx, false)
	second.Actions = slices.DeleteFunc(second.Actions,
		func(a Action) bool { return !slices.ContainsFunc(first.Actions, a.is) })
	return second, err
}

// is reports whether two actions are about the same thing, which has not changed.
func (a Action) is(b Action) bool {
	return a.Do == b.Do && a.What == b.What && a.Reason == b.Reason &&
		a.image.UpdatedAt.Equal(b.image.UpdatedAt) && a.device.UpdatedAt.Equal(b.device.UpdatedAt)
}

// unseen is what could not be looked at: nothing is concluded from that.
func unseen(what string, err error) []Action {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []Action{{Do: Report, What: what, Reason: err.Error(), unseen: err}}
}

// reading is the journal at one moment, and what was worked on.
type reading struct {
	images  map[int64]store.Image
	devices map[int64]store.Device
	jobs    map[int64]bool // images that a job of this process has
}

func (p *Pipeline) read(ctx context.Context) (reading, error) {
	r := reading{map[int64]store.Image{}, map[int64]store.Device{}, p.working()}
	devices, err := p.Store.Devices(ctx)
	if err != nil {
		return r, err
	}
	for _, d := range devices {
		r.devices[d.ID] = d
	}
	images, err := p.Store.Images(ctx)
	for _, img := range images {
		r.images[img.ID] = img
	}
	for id := range p.working() {
		r.jobs[id] = true
	}
	return r, err
}

// comparison is the pool between two readings of the journal.
type comparison struct {
	alone         bool // nobody worked on the images meanwhile
	before, after reading
	truth         poolTruth
}

// calm reports whether nobody worked on the image from the first reading to the last. A
// daemon in another process has it in hand while its attempt runs; a further snapshot of
// an active image is made by a command, and those are kept out.
func (c comparison) calm(image int64) bool {
	was, known := c.before.images[image]
	is := c.after.images[image]
	if c.alone {
		return true
	}
	return known && was.UpdatedAt.Equal(is.UpdatedAt) && !c.before.jobs[image] && !c.after.jobs[image] &&
		(!is.Running || is.State != store.StatePending)
}

// still reports whether the device is as it was in the first reading.
func (c comparison) still(d store.Device) bool {
	was, known := c.before.devices[d.ID]
	return c.alone || known && was.State == d.State && was.UpdatedAt.Equal(d.UpdatedAt) && c.calm(d.Image)
}

func (c comparison) inHand() (n int) {
	for id := range c.after.images {
		if !c.calm(id) {
			n++
		}
	}
	return n
}

// known reports whether the journal had the device at any moment.
func (c comparison) known(id devmapper.ID) bool {
	_, before := c.before.devices[int64(id)]
	_, after := c.after.devices[int64(id)]
	return before || after
}

// planDevices compares the devices of the journal with the pool.
func (c comparison) planDevices() []Action {
	var plan []Action
	ids := slices.Sorted(maps.Keys(c.after.devices))
	slices.Reverse(ids) // snapshots before their origins
	for _, id := range ids {
		d := c.after.devices[id]
		img := c.after.images[d.Image]
		if do, reason := decide(img, d, c.truth); do != "" && c.still(d) {
			plan = append(plan, Action{
				Do: do, What: fmt.Sprintf("device %d", d.ID), Image: d.Image, Device: d.ID, Reason: reason,
				kind: deviceLeftover(do), image: img, device: d,
			})
		}
	}
	return plan
}

// planLost finds active images that have no device at all, which no path of ours leaves.
func (c comparison) planLost() []Action {
	ready := map[int64]bool{}
	for _, d := range c.after.devices {
		ready[d.Image] = ready[d.Image] || d.State == store.DeviceReady
	}
	var plan []Action
	for _, id := range slices.Sorted(maps.Keys(c.after.images)) {
		if img := c.after.images[id]; img.State == store.StateActive && !ready[id] && c.calm(id) {
			plan = append(plan, Action{
				Do: MakeAgain, What: fmt.Sprintf("image %d", id), Image: id,
				Reason: "it is active and has no device", image: img,
			})
		}
	}
	return plan
}

// planForeign finds what the pool has and the journal never had.
func (c comparison) planForeign() []Action {
	var plan []Action
	for _, id := range slices.Sorted(maps.Keys(c.truth.thins)) {
		if !c.known(id) {
			plan = append(plan, Action{
				Do: Report, What: fmt.Sprintf("thin device %d", id), Device: int64(id),
				Reason: "the journal does not know it",
				kind:   "thin_device", foreign: id,
			})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.truth.active)) {
		if !c.known(id) && !c.truth.thins[id] {
			plan = append(plan, Action{
				Do: Deactivate, What: fmt.Sprintf("dm device of thin device %d", id), Device: int64(id),
				Reason: "neither journal nor pool know it",
				kind:   "dm_device", device: store.Device{ID: int64(id)},
			})
		}
	}
	return plan
}

// poolTruth is what the pool holds, whatever the journal says.
type poolTruth struct {
	thins  map[devmapper.ID]bool
	active map[devmapper.ID]bool // whole, under our UUIDs; false: half-created
}

// look reads the pool. One that takes no changes is an error: nothing could be rolled
// back.
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

// rightPool refuses a pool that has not one of the devices that were made since it was
// created.
func (p *Pipeline) rightPool(ctx context.Context, c comparison) error {
	row, err := p.Store.Pool(ctx)
	if err != nil {
		return err
	}
	missing := 0
	for _, d := range c.after.devices {
		if d.State != store.DeviceReady || d.UpdatedAt.Before(row.CreatedAt) || !c.still(d) {
			continue
		}
		if c.truth.thins[devmapper.ID(d.ID)] {
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

// handedOut reports whether a device is a snapshot that a user may have written to. It
// stays, whatever verdict its image gets: only an operator removes it.
func handedOut(d store.Device) bool {
	return d.Kind == store.DeviceKindSnapshot && d.State == store.DeviceReady
}

// decide is the table of recovery: what becomes of one device of the journal.
func decide(img store.Image, d store.Device, truth poolTruth) (Do, string) {
	id := devmapper.ID(d.ID)
	whole, active := truth.active[id]
	switch {
	case img.State == store.StateRemoved, img.State.Refused() && !handedOut(d):
		return RollBack, "its image is " + string(img.State)
	case d.State == store.DeviceSealed && truth.thins[id] && img.Tree != nil && img.Tree.Device == d.ID:
		if img.Stage != store.StageUnpack { // its archive is fetched again; the unpack finishes it
			return "", ""
		}
		return RollForward, "it was sealed"
	case d.State != store.DeviceReady:
		return RollBack, "it is " + string(d.State)
	case !truth.thins[id]:
		return MakeAgain, "the pool does not have it"
	case d.Kind == store.DeviceKindImage && active:
		return Deactivate, "an image's device is never active"
	case d.Kind == store.DeviceKindSnapshot && !whole:
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
func (p *Pipeline) planFiles(names []string, c comparison) []Action {
	var plan []Action
	for _, name := range names {
		id, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSuffix(name, ".part"), ".tar"), 10, 64)
		img, known := c.after.images[id]
		if err != nil || !known || !strings.HasPrefix(name, blobName(id)) {
			plan = append(plan, Action{
				Do: Report, What: "file " + name, Reason: "it is not named like ours",
				kind: "file",
			})
			continue
		}
		whole := img.Blob != nil
		// the archive, or the part that will be one
		if !c.calm(id) || !img.State.Refused() && whole == (name == blobName(id)) {
			continue
		}
		a := Action{
			Do: RemoveFile, What: "file " + name, Image: id, Reason: "no image claims it", kind: "file",
			image: img,
		}
		a.remove = func(context.Context) error { return p.Downloader.Remove(name) }
		if img.State.Refused() {
			a.remove = func(context.Context) error { return p.discardBlob(&Job{image: img}) }
		}
		plan = append(plan, a)
	}
	return plan
}
