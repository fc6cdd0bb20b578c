package devmapper

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// ownerOf is the mark of a pool in its metadata superblock, in a field that the kernel carries along and leaves to others. It tells a
// swapped or restored metadata file from ours while no pool is active, when there is no dm UUID to ask; and it tells the UUID when
// nothing else does, see Identify. It is the UUID itself, of a UUID that is none a hash.
func (c Config) ownerOf() [16]byte {
	if id, ok := markable(c.UUID); ok {
		return id
	}
	return c.hashedOwner()
}

// hashedOwner is the mark that earlier versions made. It is replaced when the pool is activated next.
func (c Config) hashedOwner() (owner [16]byte) {
	sum := sha256.Sum256([]byte(c.poolUUID()))
	copy(owner[:], sum[:])
	return owner
}

// markable returns the bytes of a random UUID in its canonical form.
func markable(text string) (id uuid.UUID, ok bool) {
	id, err := uuid.Parse(text)
	return id, err == nil && id.String() == text && id.Version() == 4 && id.Variant() == uuid.RFC4122
}

// format makes an empty pool on the devices and marks it as ours. It is not active afterwards.
func (p *Pool) format(metadata, data blockDevice) error {
	if err := wipe(metadata, data); err != nil {
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
	return stamp(metadata, p.cfg.ownerOf())
}

// wipe makes the metadata device look new to the kernel, unless there is anything to lose.
func wipe(metadata, data blockDevice) error {
	used, err := HasSuperblock(metadata.path)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: %s", ErrHasSuperblock, metadata.source)
	}
	for _, b := range []blockDevice{metadata, data} {
		if err := unused(b.f, b.source); err != nil {
			return err
		}
	}
	return writeFirst(metadata, alignedBlock())
}

// stamp marks a pool that is not active.
func stamp(metadata blockDevice, owner [16]byte) error {
	block, err := firstBlock(metadata.path)
	if err != nil {
		return err
	}
	if _, err := parseSuperblock(block); err != nil {
		return fmt.Errorf("%s: %w", metadata.source, err)
	}
	copy(block[offOwner:], owner[:])
	binary.LittleEndian.PutUint32(block, seal(block, superblockSalt))
	return writeFirst(metadata, block)
}

// writeFirst replaces the first block durably. O_EXCL: EBUSY if the device is mounted or part of another dm device.
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
		return sb, fmt.Errorf("%w: the pool on %s has blocks of %d bytes, not %d", ErrForeign, metadata.source, sb.blockSize, p.cfg.BlockSize)
	}
	if sb.owner != p.cfg.ownerOf() && sb.owner != p.cfg.hashedOwner() && sb.owner != [16]byte{} {
		return sb, fmt.Errorf("%w: the pool on %s is another one, with other thin devices", ErrForeign, metadata.source)
	}
	return sb, nil
}

// revive activates a pool that is not active. One without a mark, as a crash within format or a repair leaves it, or with an earlier
// version's, is marked first, and a metadata snapshot that a power cut left half-made is struck out.
func (p *Pool) revive(sb superblock, metadata, data blockDevice) error {
	if sb.owner != p.cfg.ownerOf() {
		if err := p.ctl.remove(p.cfg.poolUUID()); err != nil && !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("remove half-created pool: %w", err)
		}
		if err := stamp(metadata, p.cfg.ownerOf()); err != nil {
			return err
		}
	}
	if err := p.strikeUncounted(sb, metadata); err != nil {
		return err
	}
	return p.start(metadata, data)
}

// readSuperblock reads the superblock of a pool that may be active: the kernel writes this block every second, and a read in between
// may see half of either.
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
