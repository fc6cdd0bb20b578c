package direct

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper/ext4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full reports whether to take all the time that a proof needs.
func full() bool { return os.Getenv("CIM_DIRECT_FULL") != "" }

const fsUUID = "11111111-2222-3333-4444-555555555555"

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CIM_REQUIRE_DM") != "" {
		t.Fatal("these tests need root, and CIM_REQUIRE_DM forbids to pass over them")
	}
	t.Skip("needs root: loop devices and ext4")
}

// disk is a loop device with a new file system of the product.
type disk struct {
	t     testing.TB
	path  string // of the loop device
	file  *os.File
	size  int64
	blank []piecemeal // what mke2fs wrote
}

// piecemeal is bytes of a device that are not a hole in its file.
type piecemeal struct {
	at    int64
	bytes []byte
}

func newDisk(t testing.TB, size int64) *disk {
	t.Helper()
	needRoot(t)
	f, err := os.CreateTemp(memory(t), "disk")
	check(t, err)
	t.Cleanup(func() { check(t, errors.Join(f.Close(), os.Remove(f.Name()))) })
	check(t, f.Truncate(size))
	d := &disk{t: t, path: command(t, "losetup", "-f", "--show", f.Name()), file: f, size: size}
	t.Cleanup(func() { check(t, exec.Command("losetup", "-d", d.path).Run()) })
	check(t, ext4.Make(t.Context(), d.path, fsUUID))
	d.blank = d.contents()
	return d
}

// contents reads what the disk's file holds.
func (d *disk) contents() (list []piecemeal) {
	d.t.Helper()
	fd := int(d.file.Fd())
	for at := int64(0); ; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return list
		}
		check(d.t, err)
		at, err = unix.Seek(fd, from, unix.SEEK_HOLE)
		check(d.t, err)
		b := make([]byte, at-from)
		_, err = d.file.ReadAt(b, from)
		check(d.t, err)
		list = append(list, piecemeal{from, b})
	}
}

// digest identifies what the disk holds. Zeros are the same as holes: the kernel may
// still be writing those that mkfs wrote.
func (d *disk) digest() [sha256.Size]byte {
	d.t.Helper()
	h, zeros := sha256.New(), make([]byte, blockSize)
	for _, p := range d.contents() {
		for at, b := range slices.Collect(slices.Chunk(p.bytes, blockSize)) {
			if !bytes.Equal(b, zeros[:len(b)]) {
				fmt.Fprintln(h, p.at/blockSize+int64(at))
				h.Write(b)
			}
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// format makes the disk new: the file system that mke2fs made, and zeros.
func (d *disk) format() {
	d.t.Helper()
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	check(d.t, unix.Fallocate(int(d.file.Fd()), punch, 0, d.size))
	for _, p := range d.blank {
		_, err := d.file.WriteAt(p.bytes, p.at)
		check(d.t, err)
	}
	d.forget()
}

// forget has the kernel read the device again.
func (d *disk) forget() {
	d.t.Helper()
	f, err := os.Open(d.path)
	check(d.t, err)
	check(d.t, errors.Join(unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0), f.Close()))
}

// memory is a directory in memory, where there is one: the tests are about what is
// written, not how fast a disk is.
func memory(t testing.TB) string {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err == nil && st.Type == unix.TMPFS_MAGIC &&
		st.Bavail*uint64(st.Bsize) > 1<<30 {
		return "/dev/shm"
	}
	return t.TempDir()
}

// open opens the disk as the daemon does.
func (d *disk) open() *os.File {
	d.t.Helper()
	f, err := os.OpenFile(d.path, os.O_RDWR|unix.O_DIRECT|unix.O_EXCL, 0)
	check(d.t, err)
	return f
}

var record = []byte(`{"seal":"test"}`)

func seal(*fstree.Inventory) ([]byte, error) { return record, nil }

// write writes a plan with verification.
func (d *disk) write(src io.ReaderAt, plan *archive.Plan) (*fstree.Inventory, error) {
	d.t.Helper()
	f := d.open()
	defer f.Close()
	w, err := LayOut(d.t.Context(), src, plan, f)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	written, err := w.Write(d.t.Context(), Options{Seal: seal, Verify: true})
	if err != nil {
		return nil, err
	}
	return written, errors.Join(w.Sync(), w.Verify())
}

// clean runs a check of the file system, which changes nothing.
func (d *disk) clean() {
	d.t.Helper()
	out := command(d.t, "e2fsck", "-fn", d.path)
	if strings.Contains(doubtfulTimes.ReplaceAllString(out, ""), "Fix?") {
		d.t.Fatal(out)
	}
}

// doubtfulTimes are times between 2310 and 2378, of which e2fsck suspects that a kernel
// before 3.14 meant others before 1970. It says so of the other engine's as well.
var doubtfulTimes = regexp.MustCompile(`Timestamp\(s\) on inode \d+ beyond 2310-04-04 are likely pre-1970.\nFix\? no\n`)

// judge checks an archive in memory.
func judge(t testing.TB, b []byte, o archive.Options) *archive.Plan {
	t.Helper()
	plan, err := archive.Check(t.Context(), bytes.NewReader(b), int64(len(b)), o)
	check(t, err)
	return plan
}

// mustBe compares inventories.
func mustBe(t testing.TB, what string, got, want *fstree.Inventory) {
	t.Helper()
	if got.Digest() != want.Digest() {
		t.Errorf("%s: %q", what, want.Diff(got, 10))
	}
}
