package direct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/test/countdown"
	"imagemanager.internal/test/images"
)

// source is an archive whose reading has an effect.
type source struct {
	io.ReaderAt
	before func(off int64)
}

func (s source) ReadAt(b []byte, off int64) (int, error) {
	s.before(off)
	return s.ReaderAt.ReadAt(b, off)
}

// defective panics as a defect does.
func defective() { clear(([]byte)(nil)[:none]) }

var none = 1

// several is an archive with files that fill more buffers than there are.
func several() []byte {
	list := images.Root()
	for i := range 40 {
		list = append(list, images.Entry{Name: fmt.Sprintf("var/%d", i), Body: strings.Repeat("x", 300_000+i)})
	}
	return images.Tar(list...)
}

// held is what a process holds that could be left behind: descriptors, and bytes of
// resident memory.
func held(t *testing.T) (descriptors int, memory int64) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	text, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	var all, resident int64
	_, err = fmt.Sscan(string(text), &all, &resident)
	check(t, err)
	return len(list), resident * int64(os.Getpagesize())
}

// attempt lays a plan out on a device and writes it. In between the test may change the
// writer.
func attempt(ctx context.Context, device *os.File, src io.ReaderAt, plan *archive.Plan, o Options, change func(*Writer),
) error {
	w, err := LayOut(ctx, src, plan, device)
	if err != nil {
		return err
	}
	defer w.Close()
	if change != nil {
		change(w)
	}
	if _, err := w.Write(ctx, o); err != nil {
		return err
	}
	return errors.Join(w.Sync(), w.Verify())
}

// A defect is an error of the attempt, wherever it shows.
func TestPanics(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := several()
	quiet := Options{Seal: seal, Verify: true}
	for name, c := range map[string]struct {
		from    int64
		options Options
		change  func(*Writer)
	}{
		"first read":   {from: 0, options: quiet},
		"a later read": {from: int64(len(b)) / 2, options: quiet},
		"in the progress": {
			from: 1 << 40, options: Options{Seal: seal, Verify: true, Progress: func(int64) { defective() }},
		},
		"in the seal": {
			from:    1 << 40,
			options: Options{Seal: func(*fstree.Inventory) ([]byte, error) { defective(); return nil, nil }},
		},
		"in the tree":   {from: 1 << 40, options: quiet, change: func(w *Writer) { w.sums = nil }},
		"in the layout": {from: 1 << 40, options: quiet, change: func(w *Writer) { w.free.runs = nil }},
	} {
		d.format()
		src := source{bytes.NewReader(b), func(off int64) {
			if off >= c.from {
				defective()
			}
		}}
		f := d.open()
		err := attempt(t.Context(), f, src, judge(t, b, archive.Options{}), c.options, c.change)
		var p *archive.Panic
		if !errors.As(err, &p) {
			t.Errorf("%s: %v", name, err)
		} else if _, ok := p.Value.(runtime.Error); !ok {
			t.Errorf("%s: the value %v", name, p.Value)
		}
		check(t, f.Close())
	}
}

// Whenever the context ends, the writing ends with its cause, and nothing is left: no
// goroutine (TestMain), no descriptor, no memory.
func TestContextEnds(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := several()
	descriptors, memory := held(t)
	n := countdown.Looks(t, "layout", func(ctx context.Context) error {
		f := d.open()
		defer f.Close()
		_, err := LayOut(ctx, bytes.NewReader(b), judge(t, b, archive.Options{}), f)
		return err
	})
	if n < 5 {
		t.Errorf("the layout looks %d times", n)
	}
	cause := errors.New("enough")
	end := 0 // calls of an attempt that is not ended
	for at := 0; end == 0; at++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		look := func() {
			if calls++; calls > at {
				cancel(cause)
			}
		}
		d.format()
		f := d.open()
		src := source{bytes.NewReader(b), func(int64) { look() }}
		err := attempt(ctx, f, src, judge(t, b, archive.Options{}), Options{
			Verify: true, Progress: func(int64) { look() },
			Seal: func(*fstree.Inventory) ([]byte, error) { look(); return record, nil },
		}, nil)
		check(t, f.Close())
		cancel(nil)
		if calls <= at {
			check(t, err)
			end = at
		} else if !errors.Is(err, cause) {
			t.Errorf("ended at call %d: %v", at+1, err)
		}
	}
	if end < 80 {
		t.Errorf("ended at %d places", end)
	}
	const oneEach = 80 * bufferSize // if each left a buffer
	if fds, now := held(t); fds != descriptors || now-memory >= oneEach {
		t.Errorf("%d descriptors, before %d; %d MiB more memory", fds, descriptors, (now-memory)>>20)
	}
	d.clean()
}

// An archive that changes while it is used is noticed.
func TestArchiveChanges(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := several()
	path := filepath.Join(t.TempDir(), "archive")
	for name, change := range map[string]func(){
		"is cut":      func() { check(t, os.Truncate(path, int64(len(b))/2)) },
		"is emptied":  func() { check(t, os.Truncate(path, 0)) },
		"is touched":  func() { check(t, os.WriteFile(path, b, 0o600)) },
		"is replaced": func() { check(t, errors.Join(os.Remove(path), os.WriteFile(path, b, 0o600))) },
	} {
		for _, when := range []string{"before", "amid"} {
			check(t, os.WriteFile(path, b, 0o600))
			src, err := os.Open(path)
			check(t, err)
			plan, err := archive.Check(t.Context(), src, int64(len(b)), archive.Options{})
			check(t, err)
			d.format()
			f := d.open()
			o := Options{Seal: seal, Verify: true}
			if when == "amid" {
				o.Progress = func(done int64) {
					if done > 3_000_000 {
						o.Progress = nil
						change()
						change = func() {}
					}
				}
			}
			if when == "before" {
				change()
			}
			err = attempt(t.Context(), f, src, plan, o, nil)
			if !errors.Is(err, archive.ErrChanged) {
				t.Errorf("%s %s: %v", name, when, err)
			}
			check(t, errors.Join(f.Close(), src.Close()))
		}
	}
}

// A device that gives back other bytes, or takes none, is noticed.
func TestDeviceFails(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := several()
	for path, want := range map[string]error{"/dev/zero": ErrVerify, "/dev/full": unix.ENOSPC} {
		other, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		f := d.open()
		err = attempt(t.Context(), f, bytes.NewReader(b), judge(t, b, archive.Options{}),
			Options{Seal: seal, Verify: true}, func(w *Writer) { w.device = other })
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		check(t, errors.Join(f.Close(), other.Close()))
	}
}

// flipping is a device that keeps one bit of one of its writes wrong.
type flipping struct {
	blockDevice
	write  atomic.Int64 // counts down; the write at which it is 0 is the one
	random *rand.Rand
}

func (f *flipping) WriteAt(b []byte, off int64) (int, error) {
	if f.write.Add(-1) != 0 {
		return f.blockDevice.WriteAt(b, off)
	}
	bad, err := alignedMemory(len(b))
	if err != nil {
		return 0, err
	}
	defer freeMemory(bad)
	copy(bad, b)
	bad[f.random.IntN(len(b))] ^= 1 << f.random.IntN(8)
	return f.blockDevice.WriteAt(bad, off)
}

// One wrong bit is noticed, whichever write it is in: of files, names, inodes, bitmaps,
// or the superblock.
func TestOneBitFlips(t *testing.T) {
	d := newDisk(t, 64<<20)
	b := several()
	plan := judge(t, b, archive.Options{})
	random := rand.New(rand.NewPCG(1, 2))
	for n := int64(1); ; n++ {
		d.format()
		f := d.open()
		device := &flipping{blockDevice: f, random: random}
		device.write.Store(n)
		err := attempt(t.Context(), f, bytes.NewReader(b), plan, Options{Seal: seal, Verify: true},
			func(w *Writer) { w.device = device })
		check(t, f.Close())
		if device.write.Load() > 0 { // there are fewer writes
			check(t, err)
			t.Logf("%d writes", n-1)
			if n < 20 {
				t.Errorf("only %d writes", n-1)
			}
			return
		}
		if !errors.Is(err, ErrVerify) {
			t.Errorf("write %d: %v", n, err)
		}
	}
}

// A write that fails amid others ends the writing with its error.
func TestWriteFailsAmid(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
	defer func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	path := filepath.Join(dir, "disk")
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, os.Truncate(path, 64<<20))
	loop := command(t, "losetup", "-f", "--show", path)
	defer command(t, "losetup", "-d", loop)
	d := &disk{t: t, path: loop}
	check(t, ext4.Make(t.Context(), loop, fsUUID))
	b := several()
	written := int64(0)
	f := d.open()
	err := attempt(t.Context(), f, bytes.NewReader(b), judge(t, b, archive.Options{}),
		Options{Seal: seal, Progress: func(done int64) { written = done }}, nil)
	if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) || written < 1<<20 {
		t.Errorf("after %d bytes: %v", written, err)
	}
	check(t, f.Close())
}
