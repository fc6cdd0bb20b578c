package direct

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// The last blocks of a device are enough for the largest seal record, or nothing is
// written.
func TestSealFits(t *testing.T) {
	d := newDisk(t, 16<<20)
	free := int64(d.filesystem().descriptor(0).count(descFreeBlocks, descFreeBlocksHigh))
	largest := bytes.Repeat([]byte("s"), archive.MaxSealRecord)
	for left := range int64(8) {
		body := strings.Repeat("x", int(free-left-4)*blockSize) // four directories have a block each
		b := pack(t, []entry{dir("etc"), dir("usr"), dir("var"), file("var/f", body)})
		plan := judge(t, b, archive.Options{})
		d.format()
		before := d.digest()
		f := d.open()
		w, err := LayOut(t.Context(), bytes.NewReader(b), plan, f)
		if err == nil {
			seal := func(*fstree.Inventory) ([]byte, error) { return largest, nil }
			_, err = w.Write(t.Context(), Options{Seal: seal})
			w.Close()
		}
		check(t, f.Close())
		switch fits := left >= 4; {
		case fits && err != nil, !fits && !errors.Is(err, ErrNoRoom):
			t.Errorf("%d blocks left: %v", left, err)
		case !fits && d.digest() != before:
			t.Errorf("%d blocks left: something was written", left)
		case fits:
			d.clean()
		}
	}
}

// filesystem reads the disk as a new file system.
func (d *disk) filesystem() *filesystem {
	d.t.Helper()
	f := d.open()
	defer f.Close()
	fs, err := readFilesystem(f)
	check(d.t, err)
	return fs
}
