package direct

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// refuses lays a plan out and expects an error, with the disk as it was.
func (d *disk) refuses(what string, src []byte, plan *archive.Plan, want error) {
	d.t.Helper()
	before := d.digest()
	f := d.open()
	defer f.Close()
	_, err := LayOut(d.t.Context(), bytes.NewReader(src), plan, f)
	if !errors.Is(err, want) {
		d.t.Errorf("%s: %v, want %v", what, err, want)
	}
	if d.digest() != before {
		d.t.Errorf("%s: something was written", what)
	}
}

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

// A file system that is not as mke2fs made it is refused before anything is written.
func TestNotNew(t *testing.T) {
	d := newDisk(t, 256<<20)
	b := images.Tar(images.Root()...)
	plan := judge(t, b, archive.Options{})
	for what, damage := range map[string]func(){
		"written before": func() {
			_, err := d.write(bytes.NewReader(b), plan)
			check(t, err)
		},
		"file of the kernel": func() {
			d.mounted(func(dir string) { check(t, os.WriteFile(dir+"/x", nil, 0o600)) })
		},
		"directory of the kernel": func() { d.mounted(func(dir string) { check(t, os.Mkdir(dir+"/x", 0o700)) }) },
		"device cut short":        func() { check(t, d.file.Truncate(d.size/2)); command(t, "losetup", "-c", d.path) },
		"no file system":          func() { d.flip(superblockAt + 0x38) },
		"superblock":              func() { d.flip(superblockAt + 0x200) },
		"first descriptor":        func() { d.flip(blockSize + descFreeBlocks) },
		"second descriptor":       func() { d.flip(blockSize + descriptorSize + descFlags) },
		"bitmap": func() {
			d.flip(int64(d.filesystem().descriptor(0).block(descBlockBitmap))*blockSize + 1000)
		},
		"root directory's inode": func() {
			d.flip(int64(d.filesystem().descriptor(0).block(descInodeTable))*blockSize + inodeSize + 0x1a)
		},
	} {
		check(t, d.file.Truncate(d.size))
		command(t, "losetup", "-c", d.path)
		d.format()
		damage()
		d.forget()
		d.refuses(what, b, plan, ErrNotNew)
	}
}

// A record that nobody could read again is refused, as by the mounted engine.
func TestSealRecordOfWrongSize(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := images.Tar(images.Root()...)
	plan := judge(t, b, archive.Options{})
	for _, size := range []int{0, archive.MaxSealRecord + 1} {
		d.format()
		f := d.open()
		w, err := LayOut(t.Context(), bytes.NewReader(b), plan, f)
		check(t, err)
		seal := func(*fstree.Inventory) ([]byte, error) { return make([]byte, size), nil }
		if _, err := w.Write(t.Context(), Options{Seal: seal}); !errors.Is(err, archive.ErrSealRecord) {
			t.Errorf("%d bytes: %v", size, err)
		}
		w.Close()
		check(t, f.Close())
	}
}

// A file system with other features is not for this package.
func TestOtherFeatures(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := images.Tar(images.Root()...)
	plan := judge(t, b, archive.Options{})
	for _, options := range []string{
		"", "-O ^metadata_csum", "-b 1024", "-I 128", "-O bigalloc", "-O ^has_journal", "-G 1", "-O inline_data",
	} {
		command(t, "mkfs.ext4", append(append([]string{"-q", "-F"}, strings.Fields(options)...), d.path)...)
		d.refuses("mkfs.ext4 "+options, b, plan, ErrUnsupported)
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

// flip changes a byte of the disk.
func (d *disk) flip(at int64) {
	d.t.Helper()
	var b [1]byte
	_, err := d.file.ReadAt(b[:], at)
	check(d.t, err)
	b[0] ^= 1
	_, err = d.file.WriteAt(b[:], at)
	check(d.t, err)
	d.forget()
}
