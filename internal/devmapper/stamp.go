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

// stampID is the thin device of the data's stamp. The ids of images begin with 1.
const (
	stampID   ID   = 0
	kindStamp Kind = "stamp"
)

// dataStamp tells the pool and the generation of the data. It lies in the two blocks of
// the thin device stampID. These are mapped when the pool is made and never again. So the
// metadata tells its place on the data device, and it can be read before the pool is
// activated, without a write. It exposes a renamed disk, a file of another pool, and a
// copy from another time.
//
// The generation of the metadata is the pool's transaction id; the kernel preserves it
// and does not use it. Data belongs to metadata of the generation in the stamp, or of the
// next one while the stamp announces that. RaiseGeneration raises both in three durable
// steps:
//
//	              stamp        metadata
//	              n            n
//	announced     n, then m    n
//	raised        n, then m    m
//	confirmed     m            m
//
// A crash between any two steps leaves a pair that belongs together. Today's and
// yesterday's copies never do: m was never announced before.
//
// The two blocks are written in turn, so a power cut tears only one of them. There are
// two also because thin_repair 0.9, after the loss of the superblock, takes no mappings
// if the only one is to data block 0.
type dataStamp struct {
	owner      uuid.UUID
	number     uint64 // of the write; the larger one is valid, and its parity is its place
	generation uint64
	next       uint64 // the announced generation, or the same
}

const (
	stampMagic      = "CIM pool's data\n"
	stampSize       = metadataBlock
	stampOwner      = 16
	stampNumber     = 32
	stampGeneration = 40
	stampNext       = 48
	stampSum        = stampSize - 4
)

func (s dataStamp) pack() []byte {
	block := alignedBlock()
	copy(block, stampMagic)
	copy(block[stampOwner:], s.owner[:])
	binary.LittleEndian.PutUint64(block[stampNumber:], s.number)
	binary.LittleEndian.PutUint64(block[stampGeneration:], s.generation)
	binary.LittleEndian.PutUint64(block[stampNext:], s.next)
	binary.LittleEndian.PutUint32(block[stampSum:], crc32.Checksum(block[:stampSum], castagnoli))
	return block
}

// parseStamp reads a stamp; ok reports whether the block is one that was written whole.
func parseStamp(block []byte) (s dataStamp, ok bool) {
	if len(block) != stampSize || string(block[:stampOwner]) != stampMagic ||
		binary.LittleEndian.Uint32(block[stampSum:]) != crc32.Checksum(block[:stampSum], castagnoli) {
		return s, false
	}
	copy(s.owner[:], block[stampOwner:])
	s.number = binary.LittleEndian.Uint64(block[stampNumber:])
	s.generation = binary.LittleEndian.Uint64(block[stampGeneration:])
	s.next = binary.LittleEndian.Uint64(block[stampNext:])
	return s, true
}

// readStamp reads the newest stamp at these places of the data; ok reports whether there
// is one. A block torn by a power cut may be unreadable: the other is enough.
func readStamp(r io.ReaderAt, places ...int64) (s dataStamp, ok bool, err error) {
	for _, at := range places {
		block := alignedBlock()
		if _, e := r.ReadAt(block, at); e != nil {
			if !errors.Is(e, io.EOF) { // io.EOF: the device ends before it
				err = fmt.Errorf("read the stamp of the data: %w", e)
			}
			continue
		}
		if got, whole := parseStamp(block); whole && (!ok || got.number > s.number) {
			s, ok = got, true
		}
	}
	if ok {
		err = nil
	}
	return s, ok, err
}

// place returns the index of the block for this stamp.
func (s dataStamp) place() int { return int(s.number % 2) }

// write writes the stamp durably.
func (s dataStamp) write(f *os.File, at int64) error {
	what := "confirm"
	if s.next != s.generation {
		what = "announce"
	}
	failpoint.Here("before", "stamp", what)
	defer failpoint.Here("after", "stamp", what)
	if _, err := f.WriteAt(s.pack(), at); err != nil {
		return fmt.Errorf("write the stamp of the data: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the stamp of the data: %w", err)
	}
	return nil
}

// createStamp stamps the data of a new, active pool. It may be called again after a
// crash.
func (p *Pool) createStamp(metadata blockDevice) error {
	if err := p.message(fmt.Sprintf("create_thin %d", stampID)); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	if _, err := p.activate(stampID, kindStamp, 2*p.cfg.BlockSize, false); err != nil {
		return err
	}
	if err := errors.Join(p.writeFirstStamp(), p.Deactivate(stampID)); err != nil {
		return err
	}
	sb, err := checkSuperblock(p.cfg, metadata)
	if err != nil {
		return err
	}
	p.stampAt, err = locateStamp(metadata, sb)
	return err
}

// writeFirstStamp writes through the thin device: the kernel maps its blocks, and the
// flush commits the mappings.
func (p *Pool) writeFirstStamp() error {
	d, err := p.ctl.Find(p.cfg.thinUUID(stampID))
	if err != nil {
		return err
	}
	path, err := d.WorkPath()
	if err != nil {
		return err
	}
	f, err := openExclusive(path, os.O_RDWR|unix.O_DIRECT)
	if err != nil {
		return err
	}
	defer f.Close()
	for number := range uint64(2) {
		s := dataStamp{owner: p.cfg.owner(), number: number}
		if err := s.write(f, int64(s.place())*p.cfg.BlockSize); err != nil {
			return err
		}
	}
	return nil
}

// locateStamp returns the places of the stamp's two blocks on the data device, in bytes.
// errNotMapped is returned when the pool has no stamp.
func locateStamp(metadata blockDevice, sb superblock) (places [2]int64, err error) {
	f, err := openRaw(metadata.path)
	if err != nil {
		return places, err
	}
	defer f.Close()
	var blocks [2]uint64
	if err := mappedBlocks(f, sb, stampID, blocks[:]); err != nil {
		return places, err
	}
	for i, block := range blocks {
		if block > uint64(1<<62/sb.blockSize) {
			return places, fmt.Errorf("%w: the stamp is in data block %d", errMalformed, block)
		}
		places[i] = int64(block) * sb.blockSize
	}
	return places, nil
}
