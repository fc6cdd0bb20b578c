package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// The flags of an entry (drivers/md/dm-log-writes.c).
const (
	flush = 1 << iota
	fua
	discard
	mark
)

const (
	magic   = 0x6a736677736872
	sector  = 512
	tearsAt = 4096 // bytes: what a disk writes whole or not at all
)

// entry is one line of a log of writes. The kernel logs a write when it is on the disk
// for good: one with FUA when it has ended, the others when a flush has ended that was
// sent after their end, before the entry of that flush. So what precedes a flush, a FUA
// or a mark in the log was durable when that happened, and what follows was not known to
// be.
type entry struct {
	offset, size int64 // on the disk, bytes
	flags        int64
	data         int64  // where its data lies in the log, bytes
	mark         string // what the test wrote between the writes
}

func (e entry) is(flags int64) bool { return e.flags&flags != 0 }

// readLog reads the entries of a log device.
func readLog(log io.ReaderAt) ([]entry, error) {
	block := make([]byte, sector)
	if _, err := log.ReadAt(block, 0); err != nil {
		return nil, err
	}
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(block[8*i:])) }
	if n := binary.LittleEndian.Uint32(block[24:]); word(0) != magic || word(1) != 1 || n != sector {
		return nil, fmt.Errorf("no log of writes of version 1 with sectors of %d bytes", sector)
	}
	list := make([]entry, 0, word(2))
	for at := int64(sector); len(list) < cap(list); {
		if _, err := log.ReadAt(block, at); err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(list), err)
		}
		at += sector
		e := entry{offset: word(0) * sector, size: word(1) * sector, flags: word(2), data: at}
		if e.is(mark) {
			e.mark = string(block[32 : 32+word(3)])
		}
		if !e.is(discard) {
			at += e.size
		}
		list = append(list, e)
	}
	return list, nil
}

// cut is a state that a power cut may leave the disk in.
type cut struct {
	at   int    // every entry before this one is on the disk
	mode string // what is on the disk of those that the disk had, but had not to keep
	seed uint64 // of the choice
}

// modes: none of the unflushed writes, all, some of them, and some 4 KiB of them.
var modes = []string{"none", "all", "writes", "blocks"}

func (c cut) String() string { return fmt.Sprintf("entry %d, %s, seed %d", c.at, c.mode, c.seed) }

// unflushed returns the entries that the disk may or may not have kept when the power
// fails before entry at: the writes that the next flush would have made durable, or the
// one write with FUA that was under way. A write that follows a write with FUA in the log
// may have waited for that: it is not on the disk without it.
func unflushed(log []entry, at int) []entry {
	end := at
	for end < len(log) && !log[end].is(flush|fua|mark) {
		end++
	}
	if end == at && end < len(log) && log[end].is(fua) {
		end++
	}
	return log[at:end]
}

// replay makes the disk's state.
func (c cut) replay(log []entry, from io.ReaderAt, disk io.WriterAt) error {
	for _, e := range log[:c.at] {
		if err := e.write(from, disk, func() bool { return true }); err != nil {
			return err
		}
	}
	r := rand.New(rand.NewPCG(c.seed, uint64(c.at)))
	coin := func() bool { return r.IntN(2) == 0 }
	for _, e := range unflushed(log, c.at) {
		keep := coin
		if c.mode != "blocks" {
			all := c.mode == "all" || c.mode == "writes" && coin()
			keep = func() bool { return all }
		}
		if err := e.write(from, disk, keep); err != nil {
			return err
		}
	}
	return nil
}

// write brings what is kept of an entry to the disk. What was discarded reads as zeros.
func (e entry) write(from io.ReaderAt, disk io.WriterAt, keep func() bool) error {
	if e.is(mark) {
		return nil
	}
	data := make([]byte, e.size)
	if !e.is(discard) {
		if _, err := from.ReadAt(data, e.data); err != nil {
			return err
		}
	}
	for at := int64(0); at < e.size; {
		end := at
		for end < e.size && keep() { // adjacent parts in one call
			end = min(end+tearsAt-(e.offset+end)%tearsAt, e.size)
		}
		if end > at {
			if _, err := disk.WriteAt(data[at:end], e.offset+at); err != nil {
				return err
			}
		}
		at = min(end+tearsAt-(e.offset+end)%tearsAt, e.size) // the part that is not kept
	}
	return nil
}

// marked returns what follows the prefix in the marks before an entry.
func marked(log []entry, at int, prefix string) []string {
	var list []string
	for _, e := range log[:at] {
		if s, ok := strings.CutPrefix(e.mark, prefix); ok && e.is(mark) {
			list = append(list, s)
		}
	}
	return list
}

// cuts chooses n states. Up to half of them are the deletions of messages, with what was
// durable then and nothing more: there most is at stake. The others are spread evenly
// over the log, each after a flush, a write with FUA or a mark.
func cuts(log []entry, n int, seed uint64) []cut {
	r := rand.New(rand.NewPCG(seed, 0))
	start := slices.IndexFunc(log, func(e entry) bool { return e.mark == markStart })
	var list []cut
	var points []int
	for i := start; i < len(log); i++ {
		if strings.HasPrefix(log[i].mark, markDeleted) {
			list = append(list, cut{at: i + 1, mode: "none"})
		}
		if log[i].is(flush | fua | mark) {
			points = append(points, i+1)
		}
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:min(len(list), n/2)]
	for i, more := 0, n-len(list); i < more; i++ {
		low, high := len(points)*i/more, len(points)*(i+1)/more
		at := points[low+r.IntN(max(1, high-low))]
		list = append(list, cut{at: at, mode: modes[r.IntN(len(modes))], seed: r.Uint64N(1000)})
	}
	slices.SortStableFunc(list, func(a, b cut) int { return a.at - b.at })
	return list
}

// memory is a disk, or a log.
type memory []byte

func (m memory) ReadAt(p []byte, at int64) (int, error) {
	return copy(p, m[at:]), nil
}

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	return copy(m[at:], p), nil
}

// aLog makes a log as the kernel does. Every write fills its blocks with a letter.
func aLog(list ...entry) memory {
	var b bytes.Buffer
	line := func(text string, words ...uint64) {
		at := b.Len()
		for _, w := range words {
			_ = binary.Write(&b, binary.LittleEndian, w)
		}
		b.WriteString(text)
		b.Write(make([]byte, at+sector-b.Len()))
	}
	line("", magic, 1, uint64(len(list)), sector)
	for i, e := range list {
		line(e.mark, uint64(e.offset/sector), uint64(e.size/sector), uint64(e.flags), uint64(len(e.mark)))
		if !e.is(discard) {
			b.Write(bytes.Repeat([]byte{byte('a' + i)}, int(e.size)))
		}
	}
	return b.Bytes()
}

// The states of a small log, all by hand: a disk of four blocks.
func TestReplay(t *testing.T) {
	from := aLog(
		entry{offset: 0, size: 2 * tearsAt},               // a
		entry{flags: flush},                               // b
		entry{offset: tearsAt, size: tearsAt, flags: fua}, // c
		entry{flags: mark, mark: "here"},                  // d
		entry{offset: 0, size: tearsAt, flags: discard},   // e
		entry{offset: tearsAt, size: 3 * tearsAt},         // f
		entry{flags: flush},                               // g
	)
	log, err := readLog(from)
	if err != nil || len(log) != 7 {
		t.Fatalf("%d entries, %v", len(log), err)
	}
	if got := marked(log, 4, "he"); len(got) != 1 || got[0] != "re" || len(marked(log, 3, "he")) != 0 {
		t.Errorf("marks: %q", got)
	}
	state := func(c cut) string {
		disk := make(memory, 4*tearsAt)
		if err := c.replay(log, from, disk); err != nil {
			t.Fatal(err)
		}
		var text []byte
		for i := 0; i < len(disk); i += tearsAt {
			text = append(text, disk[i])
		}
		return strings.ReplaceAll(string(text), "\x00", ".")
	}
	for _, c := range []struct {
		cut  cut
		want []string // any of these, and each for some seed
	}{
		{cut: cut{at: 0, mode: "none"}, want: []string{"...."}},
		{cut: cut{at: 0, mode: "writes"}, want: []string{"....", "aa.."}},
		{cut: cut{at: 0, mode: "blocks"}, want: []string{"....", "a...", ".a..", "aa.."}},
		{cut: cut{at: 2, mode: "none"}, want: []string{"aa.."}},
		// what follows the FUA is not there without it
		{cut: cut{at: 2, mode: "writes"}, want: []string{"aa..", "ac.."}},
		{cut: cut{at: 2, mode: "all"}, want: []string{"ac.."}},
		{cut: cut{at: 3, mode: "all"}, want: []string{"ac.."}}, // the mark comes before
		{cut: cut{at: 4, mode: "all"}, want: []string{".fff"}},
		{cut: cut{at: 4, mode: "writes"}, want: []string{"ac..", ".c..", "afff", ".fff"}},
		{cut: cut{at: 6, mode: "none"}, want: []string{".fff"}},
	} {
		seen := map[string]bool{}
		for c.cut.seed = range 200 {
			seen[state(c.cut)] = true
		}
		for _, w := range c.want {
			if !seen[w] {
				t.Errorf("%s: never %q", c.cut, w)
			}
			delete(seen, w)
		}
		if len(seen) > 0 {
			t.Errorf("%s: impossible %v", c.cut, seen)
		}
	}
}

// openLog opens a log device or file and reads its entries.
func openLog(t *testing.T, path string) (*os.File, []entry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	log, err := readLog(f)
	if err != nil {
		t.Fatal(err)
	}
	return f, log
}
