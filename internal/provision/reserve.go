package provision

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
)

// reservations is the space set aside for running stages.
type reservations struct {
	capacity    func() (devmapper.Status, error) // of the pool
	minFreeDisk int64                            // bytes to leave free on every file system

	onChange func(pool int64) // with the reserved bytes of the pool; mu is held

	mu    sync.Mutex
	tasks int
	pool  int64            // bytes of the pool's data
	disks map[uint64]int64 // bytes, by the file system's device number
}

func newReservations(pool *devmapper.Pool, minFreeDisk int64, onChange func(pool int64)) *reservations {
	return &reservations{
		capacity: pool.Status, minFreeDisk: minFreeDisk, onChange: onChange, disks: map[uint64]int64{},
	}
}

// need is what one task is going to write: to the pool, and to the file system of a
// directory. An empty directory stands for no file system.
type need struct {
	pool int64
	dir  string
	disk int64
}

// reserve sets aside the space that a task will need, before it writes the first byte,
// and returns what gives it back. It waits while other tasks hold theirs. If there is no
// room even then, the error is ErrPoolLow or ErrDiskLow. What a running task has written
// already counts twice, so the sum is never too small.
func (r *reservations) reserve(ctx context.Context, n need) (release func(), err error) {
	for {
		short, alone, release, err := r.try(n)
		switch {
		case err != nil:
			return nil, err
		case short == nil:
			return release, nil
		case alone:
			return nil, short
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// try reserves what is needed if there is room. If there is not, short says what is
// missing, and alone whether nobody else holds any space.
func (r *reservations) try(n need) (short error, alone bool, release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if short, err = r.poolShort(n); short != nil || err != nil {
		return short, r.tasks == 0, nil, err
	}
	dev, short, err := r.diskShort(n)
	if short != nil || err != nil {
		return short, r.tasks == 0, nil, err
	}
	r.add(1, n.pool, dev, n.disk)
	return nil, false, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.add(-1, -n.pool, dev, -n.disk)
	}, nil
}

func (r *reservations) add(tasks int, pool int64, dev uint64, disk int64) {
	r.tasks += tasks
	r.pool += pool
	r.disks[dev] += disk
	r.onChange(r.pool)
}

// poolShort says why the pool has no room, data or metadata.
func (r *reservations) poolShort(n need) (short, err error) {
	if n.pool == 0 {
		return nil, nil
	}
	s, err := r.capacity()
	if err != nil {
		return nil, err
	}
	data := s.TotalData - s.UsedData - r.pool
	metadata := s.TotalMetadata - s.UsedMetadata - metadataFor(r.pool)
	if n.pool <= data && metadataFor(n.pool) <= metadata {
		return nil, nil
	}
	return fmt.Errorf("%w: the image needs about %s of data and %s of metadata, %s and %s are free: "+
		"`consumer pool grow` adds space", ErrPoolLow, sizeText(n.pool), sizeText(metadataFor(n.pool)), sizeText(data),
		sizeText(metadata)), nil
}

// diskShort says why the file system has no room beyond its reserve.
func (r *reservations) diskShort(n need) (dev uint64, short, err error) {
	if n.dir == "" || n.disk == 0 {
		return 0, nil, nil
	}
	dev, free, err := FreeUnder(n.dir)
	if err != nil {
		return 0, nil, err
	}
	if free -= r.minFreeDisk + r.disks[dev]; n.disk <= free {
		return dev, nil, nil
	}
	return dev, fmt.Errorf("%w: the image needs about %s under %s, %s are free there beyond the reserve "+
		"(STATE_MIN_FREE): make room, or enlarge it", ErrDiskLow, sizeText(n.disk), n.dir, sizeText(free)), nil
}

// sizeText says how many bytes there are; none if there are less than none.
func sizeText(bytes int64) string { return units.BytesSize(float64(max(bytes, 0))) }

// FreeUnder returns how many bytes of a directory's file system are free, and the file
// system's device number.
func FreeUnder(dir string) (dev uint64, free int64, err error) {
	var at syscall.Stat_t
	var fs syscall.Statfs_t
	if err := syscall.Stat(dir, &at); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return at.Dev, int64(fs.Bavail) * fs.Bsize, nil //nolint:gosec // fits
}

// metadataFor returns how many bytes of metadata so many bytes of data need, by the
// kernel's rule for sizing a pool: 48 bytes for each block, here of 64 KiB, the smallest.
// Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst.
func metadataFor(bytes int64) int64 { return bytes / (64 << 10) * 48 }
