package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// reading is the journal at one moment, and the images with a job.
type reading struct {
	images  map[int64]store.Image
	devices map[int64]store.Device
	jobs    map[int64]bool // images with a job in this process
}

// poolContent is what the pool holds, whatever the journal says.
type poolContent struct {
	thins  map[devmapper.ID]bool
	active map[devmapper.ID]bool // under our UUIDs; true: complete, false: half-created
}

// comparison is the pool and the files between two readings of the journal.
type comparison struct {
	alone         bool    // nobody worked on the images meanwhile
	before, after reading // alone, there is none before
	pool          poolContent

	archives, manifests       []string // names of files
	archivesErr, manifestsErr error
}

// listActive lists the active devices of the pool.
type listActive func() ([]devmapper.ActiveDevice, error)

// compare reads the journal, the files, the pool, and the journal again. The order
// matters. Every change is in the journal before or after it is made, and what the two
// readings agree on was so throughout. Files are listed before the second reading:
// every one of them is claimed by then, if by anybody.
func (r *Reconciler) compare(ctx context.Context, alone bool, active listActive) (c comparison, err error) {
	c.alone = alone
	if !alone {
		if c.before, err = r.readJournal(ctx); err != nil {
			return c, err
		}
	}
	c.archives, c.archivesErr = r.archives.List()
	c.manifests, c.manifestsErr = r.host.Manifests.List()
	if !alone {
		if err = r.readImagesOf(ctx, c.archives, c.before); err != nil {
			return c, err
		}
	}
	if c.pool, err = r.readPool(active); err != nil {
		return c, err
	}
	if !alone {
		failpoint.Here("between", "readings")
	}
	if c.after, err = r.readJournal(ctx); err != nil {
		return c, err
	}
	if err = r.readImagesOf(ctx, c.archives, c.after); err != nil {
		return c, err
	}
	return c, r.checkPool(ctx, c)
}

// readJournal reads devices, and the images of which something may be kept. Devices come
// first: each one's image is there then. It asks for the jobs before and after.
func (r *Reconciler) readJournal(ctx context.Context) (reading, error) {
	rd := reading{map[int64]store.Image{}, map[int64]store.Device{}, map[int64]bool{}}
	r.addJobs(rd)
	devices, err := r.store.Devices(ctx)
	if err != nil {
		return rd, err
	}
	for _, d := range devices {
		rd.devices[d.ID] = d
	}
	images, err := r.store.KeptImages(ctx)
	for _, img := range images {
		rd.images[img.ID] = img
	}
	r.addJobs(rd)
	return rd, err
}

// readImagesOf adds the images of archives that are not kept. They are few: a crash has
// left their files.
func (r *Reconciler) readImagesOf(ctx context.Context, archives []string, rd reading) error {
	for _, name := range archives {
		id, ours := imageOf(name)
		if _, known := rd.images[id]; known || !ours {
			continue
		}
		img, err := r.store.Image(ctx, id)
		switch {
		case err == nil:
			rd.images[id] = img
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	return nil
}

// imageOf returns the image whose archive, or part of one, has the name.
func imageOf(name string) (id int64, ours bool) {
	id, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSuffix(name, ".part"), ".tar"), 10, 64)
	return id, err == nil && strings.HasPrefix(name, provision.ArchiveName(id))
}

func (r *Reconciler) addJobs(rd reading) {
	if r.jobs == nil {
		return
	}
	for id := range r.jobs.Working() {
		rd.jobs[id] = true
	}
}

// readPool reads the pool. If it takes no changes, that is an error: nothing could be
// rolled back.
func (r *Reconciler) readPool(list listActive) (poolContent, error) {
	content := poolContent{map[devmapper.ID]bool{}, map[devmapper.ID]bool{}}
	s, err := r.pool.Status()
	if err == nil {
		err = provision.CheckWritable(s)
	}
	if err != nil {
		return content, err
	}
	active, err := list() // before the thin devices: what is active must be among them
	if err != nil {
		return content, err
	}
	for _, a := range active {
		content.active[a.ID] = !a.HalfCreated
	}
	thins, err := r.pool.Thins()
	for _, th := range thins {
		content.thins[th.ID] = true
	}
	return content, err
}

// checkPool refuses a pool with none of the devices made since it was created.
func (r *Reconciler) checkPool(ctx context.Context, c comparison) error {
	row, err := r.store.Pool(ctx)
	if err != nil {
		return err
	}
	missing := 0
	for _, d := range c.after.devices {
		if d.State != store.DeviceReady || d.UpdatedAt.Before(row.CreatedAt) || !c.unchanged(d) {
			continue
		}
		if c.pool.thins[devmapper.ID(d.ID)] {
			return nil
		}
		missing++
	}
	if missing == 0 {
		return nil
	}
	return fmt.Errorf("%w: it has none of its %d devices; put the right %s and %s in place, "+
		"or have every image made again in a new pool by `consumer pool create --replace`",
		ErrWrongPool, missing, row.Metadata, row.Data)
}

// atRest reports whether nobody worked on the image from the first reading to the last. A
// daemon in another process works on it while its attempt runs. A further snapshot of an
// active image is made by a command, and other commands are kept out.
func (c comparison) atRest(image int64) bool {
	if c.alone {
		return true
	}
	before, known := c.before.images[image]
	after := c.after.images[image]
	running := after.Running && after.State == store.StatePending
	return known && before.UpdatedAt.Equal(after.UpdatedAt) &&
		!c.before.jobs[image] && !c.after.jobs[image] && !running
}

// unchanged reports whether the device is as it was in the first reading.
func (c comparison) unchanged(d store.Device) bool {
	if c.alone {
		return true
	}
	before, known := c.before.devices[d.ID]
	return known && before.State == d.State && before.UpdatedAt.Equal(d.UpdatedAt) && c.atRest(d.Image)
}

// inHand counts the images being worked on.
func (c comparison) inHand() (n int) {
	for id := range c.after.images {
		if !c.atRest(id) {
			n++
		}
	}
	return n
}

// known reports whether the journal had the device in either reading.
func (c comparison) known(id devmapper.ID) bool {
	_, before := c.before.devices[int64(id)]
	_, after := c.after.devices[int64(id)]
	return before || after
}
