package devmapper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// ownerOf is the mark of a pool in its metadata superblock, in a field that the kernel
// carries along and leaves to others: the UUID. It tells a swapped or restored metadata
// file from ours while no pool is active, when there is no dm UUID to ask; and it tells
// the UUID when nothing else does, see Identify. It is zero, nobody's, for what is no
// UUID.
func (c Config) ownerOf() uuid.UUID {
	id, err := uuid.Parse(c.UUID)
	if err != nil || id.String() != c.UUID {
		return uuid.Nil
	}
	return id
}

// format makes an empty pool on the devices and marks it as ours. It is not active
// afterwards.
func (p *Pool) format(metadata, data blockDevice) error {
	if err := wipe(metadata, data); err != nil {
		return err
	}
	if err := metadata.reserve(); err != nil {
		return err
	}
	d, err := p.halfCreated()
	if err != nil {
		return err
	}
	// The kernel formats when it reads the table; nothing has to be resumed.
	err = p.ctl.load(d.uuid, newPoolTable(metadata, data, p.cfg.BlockSize), false)
	if err != nil {
		err = fmt.Errorf("format pool: %w", busy(err, metadata.dev, data.dev))
	}
	if err := errors.Join(err, p.ctl.remove(d.uuid)); err != nil {
		return err
	}
	return mark(metadata, p.cfg.ownerOf())
}

// wipe makes the metadata device look new to the kernel, unless there is anything to
// lose.
func wipe(metadata, data blockDevice) error {
	used, err := HasSuperblock(metadata.path)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: %s", ErrHasSuperblock, metadata.source)
	}
	for _, b := range []blockDevice{metadata, data} {
		if err := unused(b.f, b.source, uuid.Nil); err != nil {
			return err
		}
	}
	return writeFirst(metadata, alignedBlock())
}

// mark marks the metadata of a pool that is not active.
func mark(metadata blockDevice, owner uuid.UUID) error {
	return changeSuperblock(metadata, func(block []byte) { copy(block[offOwner:], owner[:]) })
}

// changeSuperblock changes the superblock of a pool that is not active, durably.
func changeSuperblock(metadata blockDevice, change func(block []byte)) error {
	block, err := firstBlock(metadata.path)
	if err != nil {
		return err
	}
	if _, err := parseSuperblock(block); err != nil {
		return fmt.Errorf("%s: %w", metadata.source, err)
	}
	change(block)
	binary.LittleEndian.PutUint32(block, seal(block, superblockSalt))
	return writeFirst(metadata, block)
}

// writeFirst replaces the first block durably. O_EXCL: EBUSY if the device is mounted or
// part of another dm device.
func writeFirst(b blockDevice, block []byte) error {
	f, err := openExclusive(b.path, os.O_WRONLY|unix.O_DIRECT|unix.O_SYNC)
	if err != nil {
		return err
	}
	defer f.Close()
	failpoint.Here("before", "superblock")
	defer failpoint.Here("after", "superblock")
	if _, err := f.WriteAt(block, 0); err != nil {
		return err
	}
	return f.Sync()
}

// checkSuperblock tells whether there is a pool to open, and whether it is ours.
func (p *Pool) checkSuperblock(metadata blockDevice) (superblock, error) {
	sb, err := readSuperblock(metadata)
	if err != nil {
		return sb, err
	}
	if sb.blockSize != p.cfg.BlockSize {
		return sb, fmt.Errorf("%w: the pool on %s has blocks of %d bytes, not %d",
			ErrForeign, metadata.source, sb.blockSize, p.cfg.BlockSize)
	}
	if sb.owner != p.cfg.ownerOf() && sb.owner != uuid.Nil {
		return sb, fmt.Errorf("%w: the pool on %s is another one, with other thin devices", ErrForeign, metadata.source)
	}
	return sb, nil
}

// revive activates a pool that is not active, after it has been put in order and checked.
// One without a mark, as a crash within format or thin_repair leaves it, is marked.
func (p *Pool) revive(ctx context.Context, sb superblock, metadata, data blockDevice) error {
	// half-created, it may have the metadata open
	if err := p.ctl.remove(p.cfg.poolUUID()); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove half-created pool: %w", err)
	}
	if sb.owner != p.cfg.ownerOf() {
		if err := mark(metadata, p.cfg.ownerOf()); err != nil {
			return err
		}
	}
	err := checkMetadata(ctx, sb, metadata)
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: run `consumer pool repair`", err)
	}
	if err != nil {
		return err
	}
	_ = metadata.reserve() // a pool on a full disk serves its users nevertheless
	return p.start(metadata, data)
}

// readSuperblock reads the superblock of a pool that may be active: the kernel writes
// this block every second, and a read in between may see half of either.
func readSuperblock(metadata blockDevice) (sb superblock, err error) {
	malformed := func(err error) bool { return errors.Is(err, errMalformed) }
	err = patiently(tornPatience, malformed, func() error {
		block, err := firstBlock(metadata.path)
		if err != nil {
			return err
		}
		if block == nil || !isSuperblock(block) {
			return fmt.Errorf("%w: %s", ErrNoSuperblock, metadata.source)
		}
		if sb, err = parseSuperblock(block); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, metadata.source, err)
		}
		return nil
	})
	return sb, err
}
