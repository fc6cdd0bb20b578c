package extract

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CIM_REQUIRE_DM") != "" {
		t.Fatal("these tests need root, and CIM_REQUIRE_DM forbids to pass over them")
	}
	t.Skip("needs root: mounts ext4")
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// disk is a fresh ext4 file system on a loop device.
type disk struct {
	t    testing.TB
	path string
	loop string
	size int64
}

func newDisk(t testing.TB, size int64) *disk {
	t.Helper()
	needRoot(t)
	f, err := os.CreateTemp(memory(t), "disk")
	check(t, err)
	path := f.Name()
	t.Cleanup(func() { check(t, os.Remove(path)) })
	check(t, errors.Join(f.Truncate(size), f.Close()))
	run(t, "mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-i", "16384", "-E",
		"nodiscard,assume_storage_prezeroed=1", "-O", "^resize_inode", path)
	d := &disk{t: t, path: path, loop: run(t, "losetup", "-f", "--show", path), size: size}
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", d.loop).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v %s", err, out)
		}
	})
	return d
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

// mount attaches the disk at a directory without any protecting flag: what keeps an
// archive inside is the extractor alone.
func (d *disk) mount(at string) *os.File {
	d.t.Helper()
	check(d.t, unix.Mount(d.loop, at, "ext4", 0, ""))
	root, err := os.Open(at)
	check(d.t, err)
	d.t.Cleanup(func() {
		root.Close()
		_ = unix.Unmount(at, unix.MNT_DETACH) // where the test did not get to it
	})
	return root
}

// detached mounts the disk as the daemon does.
func (d *disk) detached(attr int) *os.File {
	d.t.Helper()
	fd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	check(d.t, err)
	defer func() { check(d.t, unix.Close(fd)) }()
	check(d.t, unix.FsconfigSetString(fd, "source", d.loop))
	check(d.t, unix.FsconfigCreate(fd))
	const flags = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, flags|attr)
	check(d.t, err)
	root := os.NewFile(uintptr(m), "detached")
	d.t.Cleanup(func() { root.Close() })
	return root
}

// clean runs a file system check.
func (d *disk) clean() {
	d.t.Helper()
	run(d.t, "e2fsck", "-fn", d.loop)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// judgeBytes checks an archive in memory.
func judgeBytes(t testing.TB, b []byte, policy archive.Policy) (*archive.Plan, error) {
	t.Helper()
	return archive.Check(t.Context(), bytes.NewReader(b), int64(len(b)), archive.Options{Policy: policy})
}

func openTemp(t testing.TB) *os.File {
	t.Helper()
	root, err := os.Open(t.TempDir())
	check(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// outcome is "" for an accepted archive, or the reason's code.
func outcome(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var r *archive.Rejection
	if !errors.As(err, &r) {
		t.Fatalf("an error that is not a rejection: %v", err)
	}
	return string(r.Reason)
}

// sentinel is a tree outside of the root with a mount point deep inside. Whatever climbs
// out of the mount lands here.
type sentinel struct {
	t      testing.TB
	dir    string
	before string
}

func newSentinel(t testing.TB) *sentinel {
	t.Helper()
	s := &sentinel{t: t, dir: t.TempDir()}
	for _, d := range []string{"a/b/mnt", "etc/cron.d", "tmp", "usr/bin"} {
		check(t, os.MkdirAll(filepath.Join(s.dir, d), 0o755))
	}
	for _, f := range []string{"etc/passwd", "x", "a/x", "a/b/x", "usr/bin/tool"} {
		check(t, os.WriteFile(filepath.Join(s.dir, f), []byte("sentinel"), 0o644))
	}
	s.before = s.state()
	return s
}

func (s *sentinel) mountPoint() string { return filepath.Join(s.dir, "a/b/mnt") }

// state is the tree's digest with nothing mounted, and what some files of the machine
// look like that hostile archives aim at.
func (s *sentinel) state() string {
	root, err := os.Open(s.dir)
	check(s.t, err)
	defer root.Close()
	m, err := ReadBack(s.t.Context(), root)
	check(s.t, err)
	state := m.Digest()
	for _, p := range []string{
		"/etc/passwd", "/etc/shadow", "/etc/cron.d", "/tmp/moo", "/x", "/etc/x", "/tmp/x",
		"/etc/mtab",
	} {
		var st unix.Stat_t
		err := unix.Lstat(p, &st)
		state += fmt.Sprintf("\n%s %v %d %d %o %v", p, err, st.Ino, st.Size, st.Mode, st.Mtim)
	}
	return state
}

func (s *sentinel) unchanged() {
	s.t.Helper()
	if now := s.state(); now != s.before {
		s.t.Errorf("something outside of the root has changed:\n%s\nbefore:\n%s", now, s.before)
	}
}
