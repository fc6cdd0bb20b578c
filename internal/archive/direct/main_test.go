package direct

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper/ext4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	t    testing.TB
	path string // of the loop device
	file string
}

func newDisk(t testing.TB, size int64) *disk {
	t.Helper()
	needRoot(t)
	f, err := os.CreateTemp(memory(t), "disk")
	check(t, err)
	t.Cleanup(func() { check(t, os.Remove(f.Name())) })
	check(t, errors.Join(f.Truncate(size), f.Close()))
	d := &disk{t: t, path: command(t, "losetup", "-f", "--show", f.Name()), file: f.Name()}
	t.Cleanup(func() { check(t, exec.Command("losetup", "-d", d.path).Run()) })
	d.format()
	return d
}

// format makes the disk new: zeros and an empty file system.
func (d *disk) format() {
	d.t.Helper()
	f, err := os.OpenFile(d.file, os.O_RDWR, 0)
	check(d.t, err)
	info, err := f.Stat()
	check(d.t, err)
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	check(d.t, errors.Join(unix.Fallocate(int(f.Fd()), punch, 0, info.Size()), f.Close()))
	command(d.t, "blockdev", "--flushbufs", d.path)
	check(d.t, ext4.Make(d.t.Context(), d.path, fsUUID))
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
func (d *disk) write(src []byte, plan *archive.Plan) (*fstree.Inventory, error) {
	d.t.Helper()
	f := d.open()
	defer f.Close()
	w, err := LayOut(d.t.Context(), bytes.NewReader(src), plan, f)
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
	if out := command(d.t, "e2fsck", "-fn", d.path); strings.Contains(out, "Fix?") {
		d.t.Fatal(out)
	}
}

// read reads the tree by the kernel, and the seal record.
func (d *disk) read() *fstree.Inventory {
	d.t.Helper()
	m, err := ext4.MountDetached(d.path, ext4.MountInspect)
	check(d.t, err)
	defer m.Close()
	got, err := extract.ReadSealRecord(m.Root())
	check(d.t, err)
	if !bytes.Equal(got, record) {
		d.t.Errorf("the seal record is %q", got)
	}
	found, err := extract.ReadBack(d.t.Context(), m.Root())
	check(d.t, err)
	return found
}

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
