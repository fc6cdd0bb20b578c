package pipeline

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// reservation is what running stages may still write. Pipeline.mu guards it.
type reservation struct {
	jobs  int
	pool  int64            // bytes of the pool's data
	disks map[uint64]int64 // bytes, by the file system's device number
}

// need is what one job is going to write: to the pool, and to the file system of a
// directory; "" for none.
type need struct {
	pool int64
	dir  string
	disk int64
}

// reserve sets aside the space that a job will need, before it writes the first byte, and
// returns what gives it back. While other jobs hold theirs it waits; a job for which
// there is no room even then is errPoolLow or errDiskLow. What a running job has written
// already counts twice: the sum is never too small.
func (p *Pipeline) reserve(ctx context.Context, n need) (release func(), err error) {
	for {
		short, alone, release, err := p.tryReserve(n)
		switch {
		case err != nil:
			return nil, err
		case short == nil:
			return release, nil
		case alone:
			return nil, short
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		wait(ctx, time.Second)
	}
}

// tryReserve takes what is needed if it is there. Else short says what is missing, and
// alone whether nobody else holds any.
func (p *Pipeline) tryReserve(n need) (short error, alone bool, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if short, err = p.poolShort(n); short != nil || err != nil {
		return short, p.held.jobs == 0, nil, err
	}
	dev, short, err := p.diskShort(n)
	if short != nil || err != nil {
		return short, p.held.jobs == 0, nil, err
	}
	if p.held.disks == nil {
		p.held.disks = map[uint64]int64{}
	}
	p.hold(1, n.pool, dev, n.disk)
	return nil, false, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.hold(-1, -n.pool, dev, -n.disk)
	}, nil
}

func (p *Pipeline) hold(jobs int, pool int64, dev uint64, disk int64) {
	p.held.jobs += jobs
	p.held.pool += pool
	p.held.disks[dev] += disk
}

// poolShort says why the pool has no room, data or metadata.
func (p *Pipeline) poolShort(n need) (short, err error) {
	if n.pool == 0 {
		return nil, nil
	}
	s, err := p.Pool.Status()
	if err != nil {
		return nil, err
	}
	data := s.TotalData - s.UsedData - p.held.pool
	metadata := s.TotalMetadata - s.UsedMetadata - metadataFor(p.held.pool)
	if n.pool <= data && metadataFor(n.pool) <= metadata {
		return nil, nil
	}
	return fmt.Errorf("%w: the image needs about %d bytes of data and %d of metadata, %d and %d are free: `consumer pool grow` adds space",
		errPoolLow, n.pool, metadataFor(n.pool), data, metadata), nil
}

// diskShort says why the file system has no room beyond its reserve.
func (p *Pipeline) diskShort(n need) (dev uint64, short, err error) {
	if n.dir == "" || n.disk == 0 {
		return 0, nil, nil
	}
	dev, free, err := freeUnder(n.dir)
	if err != nil {
		return 0, nil, err
	}
	if free -= p.cfg.MinFreeDisk + p.held.disks[dev]; n.disk <= free {
		return dev, nil, nil
	}
	return dev, fmt.Errorf("%w: the image needs about %d MiB under %s, %d MiB are free there beyond the reserve (STATE_MIN_FREE): make room, or enlarge it",
		errDiskLow, n.disk>>20, n.dir, max(free, 0)>>20), nil
}

// freeUnder returns how many bytes of a directory's file system are free, and its device
// number.
func freeUnder(dir string) (dev uint64, free int64, err error) {
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

// metadataFor is how much metadata so many bytes of data need, by the kernel's rule for
// sizing a pool: 48 bytes for each block, here of 64 KiB, the smallest. Source:
// Documentation/admin-guide/device-mapper/thin-provisioning.rst.
func metadataFor(bytes int64) int64 { return bytes / (64 << 10) * 48 }
