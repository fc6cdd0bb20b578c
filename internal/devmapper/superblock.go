package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// superblock holds the fields in use of a metadata superblock.
type superblock struct {
	detailsRoot    uint64
	mappingRoot    uint64
	transactionID  uint64 // the pool's generation, see dataStamp
	heldRoot       uint64 // block of the metadata snapshot, 0 if there is none
	metadataBlocks uint64 // size of the metadata's space map, in blocks
	bitmapRoot     uint64 // block of the space map's index
	blockSize      int64  // of data, bytes
	needsCheck     bool
	owner          uuid.UUID // the pool's, see Config.owner; zero if nobody's
}

func parseSuperblock(block []byte) (superblock, error) {
	if len(block) != metadataBlock || binary.LittleEndian.Uint64(block[offMagic:]) != superblockMagic ||
		!checksumMatches(block, superblockSalt) {
		return superblock{}, fmt.Errorf("%w metadata superblock", errMalformed)
	}
	sb := superblock{
		detailsRoot:    binary.LittleEndian.Uint64(block[offDetailsRoot:]),
		mappingRoot:    binary.LittleEndian.Uint64(block[offMappingRoot:]),
		transactionID:  binary.LittleEndian.Uint64(block[offTransaction:]),
		heldRoot:       binary.LittleEndian.Uint64(block[offHeldRoot:]),
		metadataBlocks: binary.LittleEndian.Uint64(block[offBlocks:]),
		bitmapRoot:     binary.LittleEndian.Uint64(block[offBitmapRoot:]),
		blockSize:      int64(binary.LittleEndian.Uint32(block[offDataBlockSize:])) * sectorSize,
		needsCheck:     binary.LittleEndian.Uint32(block[offFlags:])&flagNeedsCheck != 0,
	}
	copy(sb.owner[:], block[offOwner:])
	if sb.metadataBlocks > maxBitmaps*blocksPerBitmap {
		return superblock{}, fmt.Errorf("%w metadata superblock: %d blocks of metadata",
			errMalformed, sb.metadataBlocks)
	}
	if sb.blockSize < minBlockSize || sb.blockSize > maxBlockSize {
		return superblock{}, fmt.Errorf("%w metadata superblock: data blocks of %d bytes", errMalformed, sb.blockSize)
	}
	return sb, nil
}

// blockChecksum returns the checksum a block should carry: CRC-32C without the final
// inversion, salted by the block's type.
func blockChecksum(block []byte, salt uint32) uint32 {
	return ^crc32.Checksum(block[4:metadataBlock], castagnoli) ^ salt
}

func checksumMatches(block []byte, salt uint32) bool {
	return binary.LittleEndian.Uint32(block) == blockChecksum(block, salt)
}

// isSuperblock accepts damaged superblocks too: a damaged one is still somebody's pool,
// never to be formatted.
func isSuperblock(block []byte) bool {
	return binary.LittleEndian.Uint64(block[offMagic:]) == superblockMagic || checksumMatches(block, superblockSalt)
}

// HasSuperblock reports whether a metadata device or file holds a pool, intact or
// damaged. A missing file is fs.ErrNotExist.
func HasSuperblock(path string) (bool, error) {
	block, err := readFirstBlock(path)
	if err != nil || block == nil {
		return false, err
	}
	return isSuperblock(block), nil
}

// checkSuperblock reads the superblock and makes sure that it is this pool's. Nobody's is
// accepted.
func checkSuperblock(cfg Config, metadata blockDevice) (superblock, error) {
	sb, err := readSuperblock(metadata)
	if err != nil {
		return sb, err
	}
	if sb.blockSize != cfg.BlockSize {
		return sb, fmt.Errorf("%w: the pool on %s has blocks of %d bytes, not %d",
			ErrForeign, metadata.source, sb.blockSize, cfg.BlockSize)
	}
	if sb.owner != cfg.owner() && sb.owner != uuid.Nil {
		return sb, fmt.Errorf("%w: the pool on %s is another one, with other thin devices", ErrForeign, metadata.source)
	}
	return sb, nil
}

// readSuperblock reads the superblock of a pool that may be active. The kernel writes
// this block every second, and a read may see half of the old one and half of the new.
func readSuperblock(metadata blockDevice) (sb superblock, err error) {
	malformed := func(err error) bool { return errors.Is(err, errMalformed) }
	err = retryWhile(tornTimeout, malformed, func() error {
		block, err := readFirstBlock(metadata.path)
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

// readFirstBlock reads the first 4 KiB; it returns nil if there are fewer.
func readFirstBlock(path string) ([]byte, error) {
	f, err := openRaw(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block := alignedBlock()
	if _, err := f.ReadAt(block, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	return block, nil
}

// writeFirstBlock replaces the first block durably. With O_EXCL, a device that is mounted
// or part of another dm device is EBUSY.
func writeFirstBlock(b blockDevice, block []byte) error {
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

// changeSuperblock changes the superblock of an inactive pool durably.
func changeSuperblock(metadata blockDevice, change func(block []byte)) error {
	block, err := readFirstBlock(metadata.path)
	if err != nil {
		return err
	}
	if _, err := parseSuperblock(block); err != nil {
		return fmt.Errorf("%s: %w", metadata.source, err)
	}
	change(block)
	binary.LittleEndian.PutUint32(block, blockChecksum(block, superblockSalt))
	return writeFirstBlock(metadata, block)
}

// setOwner marks the metadata of an inactive pool.
func setOwner(metadata blockDevice, owner uuid.UUID) error {
	return changeSuperblock(metadata, func(block []byte) { copy(block[offOwner:], owner[:]) })
}
