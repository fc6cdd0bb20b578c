package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// GrowData makes the pool's data larger, to newBytes, while it is in use. A file is
// extended, sparse. A block device must have been enlarged before, and all of it is
// taken. A pool out of data space becomes writable again. GrowData may be called again
// after a crash, and with the present size. Errors: EINVAL for less than the present
// size, ENOSPC if the metadata cannot count so many blocks, ErrReadOnly, and errno; then
// the pool is as before.
func (p *Pool) GrowData(newBytes int64) error {
	err := p.grow(func(_, data *blockDevice) error {
		if err := p.checkCountable(newBytes); err != nil {
			return err
		}
		return data.extend(newBytes, (*os.File).Truncate)
	})
	if err != nil {
		return fmt.Errorf("grow data of pool %s: %w", p.cfg.Name, err)
	}
	return nil
}

// checkCountable returns ENOSPC if the metadata have no room to count so many bytes of
// data. The kernel would refuse the table only when the file is enlarged already, and
// then at every start as well. It takes a block for each 16,320 blocks of data, and some
// for the index of those. Source: drivers/md/persistent-data/dm-space-map-common.h.
func (p *Pool) checkCountable(newBytes int64) error {
	const perBitmap, spare = (metadataBlock - 16) * 4, 32
	s, err := p.Status()
	if err != nil {
		return err
	}
	more := (newBytes - s.TotalData) / p.cfg.BlockSize / perBitmap
	needed := (more + more/32 + spare) * metadataBlock
	if free := s.TotalMetadata - s.UsedMetadata; more > 0 && needed > free {
		return fmt.Errorf("its metadata need %d MiB more for that, and %d are free: %w",
			(needed+1<<20-1)>>20, free>>20, unix.ENOSPC)
	}
	return nil
}

// GrowMetadata makes the pool's metadata larger, like GrowData, but sets a file's space
// aside. The kernel uses at most 16 GiB.
func (p *Pool) GrowMetadata(newBytes int64) error {
	if newBytes > maxMetadataSize {
		return fmt.Errorf("grow metadata of pool %s to %d bytes, at most %d: %w",
			p.cfg.Name, newBytes, int64(maxMetadataSize), unix.EINVAL)
	}
	err := p.grow(func(metadata, _ *blockDevice) error { return metadata.extend(newBytes, reserveFile) })
	if err != nil {
		return fmt.Errorf("grow metadata of pool %s: %w", p.cfg.Name, err)
	}
	return nil
}

// grow lets extend enlarge one of the devices, and then lets the pool look at both again.
func (p *Pool) grow(extend func(metadata, data *blockDevice) error) error {
	unlock, err := lockPool(p.cfg)
	if err != nil {
		return err
	}
	defer unlock()
	metadata, data, err := attachPair(p.cfg)
	if err != nil {
		return err
	}
	defer metadata.close()
	defer data.close()
	if err := extend(&metadata, &data); err != nil {
		return err
	}
	if err := p.reload(newPoolTable(metadata, data, p.cfg.BlockSize)); err != nil {
		return err
	}
	s, err := p.Status()
	if err != nil {
		return err
	}
	return s.checkWritable()
}

// reload replaces the pool's live table in one call: the kernel suspends, swaps and
// resumes. If that fails the pool may be suspended with the new table, so it is given the
// old one back.
func (p *Pool) reload(t dmctl.Table) error {
	uuid := p.cfg.poolUUID()
	_, old, err := p.ctl.LiveTable(uuid)
	if err != nil {
		return err
	}
	if err := p.ctl.Load(uuid, t, false); err != nil {
		return fmt.Errorf("load pool table: %w", err)
	}
	err = p.ctl.Resume(uuid)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("resume pool with its new table: %w", err)
	if lerr := p.ctl.Load(uuid, old, false); lerr != nil {
		return errors.Join(err, fmt.Errorf("load the old pool table: %w", lerr))
	}
	return errors.Join(err, p.ctl.Resume(uuid))
}
