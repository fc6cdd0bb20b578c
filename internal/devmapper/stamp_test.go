package devmapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// shortReader is a device that ends after so many bytes.
type shortReader struct {
	io.ReaderAt
	size int64
}

func (r shortReader) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > r.size {
		return 0, io.EOF
	}
	return r.ReaderAt.ReadAt(b, at)
}

// Of the two blocks the newer one counts, and one that was not written whole does not.
func TestReadStamp(t *testing.T) {
	older := dataStamp{owner: uuid.New(), number: 6, generation: 3, next: 3}
	newer := dataStamp{owner: older.owner, number: 7, generation: 3, next: 4}
	torn := newer.pack()
	copy(torn[512:], bytes.Repeat([]byte{0xff}, 512))
	blank := make([]byte, stampSize)
	for _, tt := range []struct {
		name   string
		blocks [][]byte
		want   dataStamp
	}{
		{"both", [][]byte{older.pack(), newer.pack()}, newer},
		{"in the other order", [][]byte{newer.pack(), older.pack()}, newer},
		{"one torn", [][]byte{older.pack(), torn}, older},
		{"one lost", [][]byte{blank, newer.pack()}, newer},
		{"one behind the end", [][]byte{older.pack()}, older},
		{"none", [][]byte{blank, torn}, dataStamp{}},
		{"no device", nil, dataStamp{}},
	} {
		all := slices.Concat(tt.blocks...)
		got, ok, err := readStamp(shortReader{bytes.NewReader(all), int64(len(all))}, 0, stampSize)
		if err != nil || ok != (tt.want != dataStamp{}) || got != tt.want {
			t.Errorf("%s: %+v %t %v", tt.name, got, ok, err)
		}
	}
}

// unreadable fails in a block that a power cut tore.
type unreadable struct {
	io.ReaderAt
	at int64
}

func (r unreadable) ReadAt(b []byte, at int64) (int, error) {
	if at == r.at {
		return 0, unix.EIO
	}
	return r.ReaderAt.ReadAt(b, at)
}

// A block of the stamp that cannot be read leaves the other; without any it is no fact
// that there is none.
func TestReadStampUnreadable(t *testing.T) {
	one := dataStamp{owner: uuid.New(), number: 6, generation: 3, next: 3}
	for i, at := range []int64{0, stampSize} {
		blocks := [][]byte{make([]byte, stampSize), make([]byte, stampSize)}
		blocks[1-i] = one.pack()
		r := bytes.NewReader(slices.Concat(blocks...))
		if got, ok, err := readStamp(unreadable{r, at}, 0, stampSize); err != nil || !ok || got != one {
			t.Errorf("block %d unreadable: %+v %t %v", i, got, ok, err)
		}
		if _, ok, err := readStamp(unreadable{r, stampSize - at}, 0, stampSize); err == nil || ok {
			t.Errorf("the only one unreadable: %t %v", ok, err)
		}
	}
}

func TestBelongs(t *testing.T) {
	cfg := Config{UUID: uuid.NewString(), Data: "/the/data", Metadata: "/the/metadata"}
	resting := dataStamp{owner: cfg.ownerOf(), generation: 7, next: 7}
	announced := dataStamp{owner: cfg.ownerOf(), generation: 7, next: 8}
	for _, tt := range []struct {
		name       string
		stamp      dataStamp
		unstamped  bool
		generation uint64
		says       string
	}{
		{"the same", resting, false, 7, ""},
		{"announced and not raised", announced, false, 7, ""},
		{"announced and raised", announced, false, 8, ""},
		{"older data", resting, false, 8, "the data on /the/data are a copy"},
		{"older data, cut off in a renewal", announced, false, 9, "the data on /the/data are a copy"},
		{"older metadata", resting, false, 6, "the metadata on /the/metadata are a copy"},
		{"no stamp", resting, true, 7, "does not hold this pool's data"},
		{"another's", dataStamp{owner: uuid.New(), generation: 7, next: 7}, false, 7, "another pool"},
	} {
		err := tt.stamp.belongs(!tt.unstamped, cfg, tt.generation)
		if tt.says == "" != (err == nil) || err != nil &&
			(!errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// mappings are the blocks of a tree of two levels: device 0 at block 3, its block 0 at
// data block 9, block 1 at 4.
func mappings(change func(blocks [][]byte)) io.ReaderAt {
	leaf := func(at uint64, keys []uint64, values ...uint64) []byte {
		each := make([][]uint64, len(values))
		for i, v := range values {
			each[i] = []uint64{v}
		}
		b := nodeOf(at, nodeInternal, keys, each) // whose values are numbers, too
		binary.LittleEndian.PutUint32(b[4:], nodeLeaf)
		return seal32(b, nodeSalt)
	}
	blocks := [][]byte{
		make([]byte, metadataBlock), leaf(1, []uint64{0, 5}, 3, 4), leaf(2, []uint64{7}, 4),
		leaf(3, []uint64{0, 1}, 9<<24|5, 4<<24), leaf(4, []uint64{2}, 1),
	}
	if change != nil {
		change(blocks)
	}
	return bytes.NewReader(slices.Concat(blocks...))
}

func TestMappedBlocks(t *testing.T) {
	var got [2]uint64
	if err := mappedBlocks(mappings(nil), superblock{mappingRoot: 1}, 0, got[:]); err != nil || got != [2]uint64{9, 4} {
		t.Errorf("%v, %v", got, err)
	}
	for name, tt := range map[string]struct {
		id     ID
		root   uint64
		change func(b [][]byte)
		is     error
	}{
		"no such device":   {4, 1, nil, ErrNotFound},
		"nothing mapped":   {5, 1, nil, ErrNotFound},
		"before the first": {0, 2, nil, ErrNotFound},
		"torn root":        {0, 1, func(b [][]byte) { b[1][3000] ^= 1 }, errMalformed},
		"torn leaf":        {0, 1, func(b [][]byte) { b[3][3000] ^= 1 }, errMalformed},
		"another's block":  {0, 1, func(b [][]byte) { copy(b[3], b[4]) }, errMalformed},
		"a blank device":   {0, 0, nil, errMalformed},
		"behind the end":   {0, 99, nil, io.EOF},
	} {
		if err := mappedBlocks(mappings(tt.change), superblock{mappingRoot: tt.root}, tt.id, got[:]); !errors.Is(err,
			tt.is) {
			t.Errorf("%s: %v, want %v", name, err, tt.is)
		}
	}
}

// Whatever the bytes of two nodes are, the look-up ends.
func FuzzMappedBlocks(f *testing.F) {
	f.Add(nodeOf(1, nodeInternal, []uint64{0}, [][]uint64{{1}}), []byte{})
	f.Fuzz(func(_ *testing.T, a, b []byte) {
		r := mappings(func(blocks [][]byte) {
			for i, bytes := range [][]byte{a, b} {
				clear(blocks[1+2*i])
				copy(blocks[1+2*i], bytes)
				seal32(blocks[1+2*i], nodeSalt)
			}
		})
		var got [2]uint64
		_ = mappedBlocks(r, superblock{mappingRoot: 1}, 0, got[:])
	})
}
