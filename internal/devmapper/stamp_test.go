package devmapper

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// shortReader is a device that ends after size bytes.
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
