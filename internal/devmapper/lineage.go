package devmapper

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Lineage describes a thin device's descent by the pool's own metadata. A user of the
// device can write to the device, but not to the metadata.
type Lineage struct {
	Thin

	// Origin is the older device this one shares data with, or 0. A snapshot shares none
	// when all its blocks were overwritten or discarded.
	Origin ID
}

// WasOrigin reports whether a snapshot was ever taken of the device. The kernel counts
// snapshots, and notes the count in both devices (drivers/md/dm-thin-metadata.c,
// create_snap).
func (t Thin) WasOrigin() bool { return t.SnapshotTime > t.CreationTime }

// Lineage returns every thin device of the pool with its descent, in the order of ids. It
// reads all mappings, and takes four bytes of memory for every block of the pool's data.
func (p *Pool) Lineage() (_ []Lineage, err error) {
	unlock, err := lockPool(p.cfg)
	if err != nil {
		return nil, fmt.Errorf("read thin devices' descent: %w", err)
	}
	defer unlock()
	status, err := p.Status()
	if err != nil {
		return nil, err
	}
	root, release, err := p.metadataRoot()
	if err != nil {
		return nil, fmt.Errorf("read thin devices' descent: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	f, err := openDirect(p.metadata, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read thin devices' descent: %w", err)
	}
	defer f.Close()
	list, err := readLineage(f, root, status.TotalData/p.cfg.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("read thin devices' descent on %s: %w", p.metadata, err)
	}
	return list, nil
}

// readLineage is Lineage for metadata with its superblock at block root, of a pool with
// dataBlocks blocks. Each block belongs to the oldest device using it.
func readLineage(r io.ReaderAt, root uint64, dataBlocks int64) ([]Lineage, error) {
	thins, err := readThins(r, root)
	if err != nil {
		return nil, err
	}
	thins = withoutStamp(thins)
	mappings, err := readMappingRoots(r, root)
	if err != nil {
		return nil, err
	}
	list := make([]Lineage, len(thins))
	for i, th := range thins {
		list[i] = Lineage{Thin: th}
	}
	byAge := make([]*Lineage, len(list))
	for i := range list {
		byAge[i] = &list[i]
	}
	slices.SortFunc(byAge, func(a, b *Lineage) int {
		return cmp.Or(cmp.Compare(a.CreationTime, b.CreationTime), cmp.Compare(a.ID, b.ID))
	})
	owner := make([]uint32, dataBlocks) // by data block; 0 is nobody, because id 0 is the stamp
	for _, a := range byAge {
		tree, mapped := mappings[a.ID]
		if !mapped {
			continue
		}
		err := walkTree(r, tree, 8, func(_ uint64, v []byte) error { return a.claim(owner, v) })
		if err != nil {
			return nil, fmt.Errorf("mappings of thin device %d: %w", a.ID, err)
		}
	}
	return list, nil
}

// claim takes one mapping: the data block in the upper 40 bits, and in the lower 24 the
// count of snapshots at its writing.
func (a *Lineage) claim(owner []uint32, v []byte) error {
	block := binary.LittleEndian.Uint64(v) >> 24
	if block >= uint64(len(owner)) {
		return fmt.Errorf("%w: data block %d of %d", errMalformed, block, len(owner))
	}
	switch by := owner[block]; {
	case by == 0:
		owner[block] = uint32(a.ID)
	case ID(by) != a.ID && a.Origin == 0:
		a.Origin = ID(by)
	}
	return nil
}

// readMappingRoots returns the root of each device's tree of mappings.
func readMappingRoots(r io.ReaderAt, root uint64) (map[ID]uint64, error) {
	block, err := readBlock(r, root)
	if err != nil {
		return nil, err
	}
	sb, err := parseSuperblock(block)
	if err != nil {
		return nil, err
	}
	roots := map[ID]uint64{}
	err = walkTree(r, sb.mappingRoot, 8, func(key uint64, v []byte) error {
		if key > uint64(maxID) {
			return fmt.Errorf("%w: mappings of thin device %d", errMalformed, key)
		}
		roots[ID(key)] = binary.LittleEndian.Uint64(v)
		return nil
	})
	return roots, err
}
