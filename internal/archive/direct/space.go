package direct

import (
	"fmt"
	"iter"
	"math/bits"
	"sort"
)

// space is the free space of an empty file system as one sequence of blocks, in the order
// of the device. Blocks are taken from its front only. So the place of a file is two
// numbers, though backup superblocks, bitmaps and the journal lie between its blocks.
type space struct {
	fs     *filesystem
	runs   []run
	found  uint64 // blocks in runs
	taken  uint64
	groups uint32 // looked at so far: no more than needed
	last   []byte // bitmap of the last of them, before anything was taken
}

// run is free blocks in a row.
type run struct {
	at    uint64 // in the sequence
	block uint64 // on the device
	n     uint64
}

// extent is blocks of a file in a row.
type extent struct {
	logical uint64 // first block in the file
	block   uint64 // on the device
	n       uint32
}

// maxExtent is the largest number of blocks of an extent.
const maxExtent = 32768

func newSpace(fs *filesystem) *space { return &space{fs: fs} }

// take takes the next n blocks and returns the place of the first. The error is
// ErrNoRoom.
func (s *space) take(n uint64) (uint64, error) {
	for s.found-s.taken < n {
		if s.groups == s.fs.groups {
			return 0, fmt.Errorf("%d blocks more than the device has: %w", n-(s.found-s.taken), ErrNoRoom)
		}
		if err := s.look(); err != nil {
			return 0, err
		}
	}
	at := s.taken
	s.taken += n
	return at, nil
}

// reserve returns ErrNoRoom if there are no n blocks to be taken later. It looks at no
// group: those that were looked at have their bitmaps written.
func (s *space) reserve(n uint64) error {
	free := s.found - s.taken
	for g := s.groups; free < n && g < s.fs.groups; g++ {
		free += uint64(s.fs.descriptor(g).count(descFreeBlocks, descFreeBlocksHigh))
	}
	if free < n {
		return fmt.Errorf("%d blocks more than the device has: %w", n-free, ErrNoRoom)
	}
	return nil
}

// look adds the free blocks of one more group.
func (s *space) look() error {
	used, err := s.fs.freeMap(s.groups)
	if err != nil {
		return err
	}
	first := uint64(s.groups) * uint64(s.fs.blocksPerGroup)
	for i := 0; i < len(used)*8; {
		if used[i/8] == 0xff {
			i = i/8*8 + 8
			continue
		}
		if used[i/8]&(1<<(i%8)) != 0 {
			i++
			continue
		}
		from := i
		for i < len(used)*8 && used[i/8]&(1<<(i%8)) == 0 {
			i++
		}
		s.add(first+uint64(from), uint64(i-from))
	}
	s.last = used
	s.groups++
	return nil
}

func (s *space) add(block, n uint64) {
	if k := len(s.runs) - 1; k >= 0 && s.runs[k].block+s.runs[k].n == block {
		s.runs[k].n += n
	} else {
		s.runs = append(s.runs, run{at: s.found, block: block, n: n})
	}
	s.found += n
}

// extents returns where n blocks from a place on are, as extents of a file.
func (s *space) extents(at, n uint64) iter.Seq[extent] {
	return func(yield func(extent) bool) {
		k := sort.Search(len(s.runs), func(k int) bool { return s.runs[k].at+s.runs[k].n > at })
		for done := uint64(0); done < n; k++ {
			r := s.runs[k]
			skip := at + done - r.at
			for skip < r.n && done < n {
				take := min(r.n-skip, n-done, maxExtent)
				if !yield(extent{logical: done, block: r.block + skip, n: uint32(take)}) {
					return
				}
				skip += take
				done += take
			}
		}
	}
}

// block returns where one block is.
func (s *space) block(at uint64) uint64 {
	k := sort.Search(len(s.runs), func(k int) bool { return s.runs[k].at+s.runs[k].n > at })
	return s.runs[k].block + at - s.runs[k].at
}

// end returns the first block on the device behind all that were taken, or 0.
func (s *space) end() uint64 {
	if s.taken == 0 {
		return 0
	}
	return s.block(s.taken-1) + 1
}

// countZeros counts the bits that are not set.
func countZeros(b []byte) (n uint32) {
	for i := 0; i < len(b); i += 8 {
		n += uint32(bits.OnesCount64(^le.Uint64(b[i:])))
	}
	return n
}
