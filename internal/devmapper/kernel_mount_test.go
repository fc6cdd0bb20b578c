package devmapper

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/ext4"
)

// An empty file system takes next to nothing of the pool, and nothing more while it is
// mounted.
func TestFreshFilesystemIsSmall(t *testing.T) {
	cfg := newConfig(t, 2<<30, 8*mib)
	p := created(t, cfg)
	check(t, p.CreateThin(1))
	path, err := p.Activate(1, KindImage, 2<<30, false)
	check(t, err)
	id := uuid.NewString()
	check(t, MakeFilesystem(t.Context(), path, id))
	mapped := func() int64 {
		list, err := p.Thins()
		check(t, err)
		return list[0].MappedBytes
	}
	if got := mapped(); got > 2*mib {
		t.Errorf("%d bytes mapped, want at most 2 MiB", got)
	} else {
		t.Logf("%d KiB mapped", got>>10)
	}
	before := mapped()
	m, err := MountDetached(path, ext4.MountBuild)
	check(t, err)
	check(t, m.Sync())
	check(t, m.Close())
	if got := mapped() - before; got > 2*cfg.BlockSize {
		t.Errorf("the mount mapped %d bytes", got)
	}
	if got := run(t, "blkid", "-p", "-s", "UUID", "-o", "value", path); got != id {
		t.Errorf("UUID %s, want %s", got, id)
	}
	if out := run(t, "e2fsck", "-fn", path); !strings.Contains(out, "11/131072 files") {
		t.Errorf("e2fsck: %s", out)
	}
}

func TestMakeFilesystemFails(t *testing.T) {
	needDM(t)
	err := MakeFilesystem(t.Context(), "/dev/null", uuid.NewString())
	if err == nil || !strings.Contains(err.Error(), "/dev/null") {
		t.Errorf("%v, want mke2fs's complaint", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stage timed out")
	cancel(cause)
	if err := MakeFilesystem(ctx, "/dev/null", uuid.NewString()); !errors.Is(err, cause) {
		t.Errorf("%v, want the cause", err)
	}
}

func newMount(t *testing.T) (*Pool, string, *ext4.Mount) {
	t.Helper()
	p, cfg := newPool(t)
	path := newImage(t, p)
	check(t, MakeFilesystem(t.Context(), path, cfg.UUID))
	m, err := MountDetached(path, ext4.MountBuild)
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	return p, path, m
}

func TestDetachedMount(t *testing.T) {
	p, _, m := newMount(t)
	write(t, m, "hello", "world")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	if strings.Contains(string(mounts), "cim-") {
		t.Error("it is in the mount table")
	}
	for name, do := range map[string]func() error{
		"device node": func() error {
			check(t, unix.Mknodat(int(m.Root().Fd()), "null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			return openIn2(m, "null", 0)
		},
		"symlink": func() error {
			check(t, unix.Symlinkat("hello", int(m.Root().Fd()), "link"))
			return openIn2(m, "link", 0)
		},
		"out of it": func() error { return openIn2(m, "../etc", unix.RESOLVE_BENEATH) },
	} {
		if do() == nil {
			t.Errorf("%s: was opened", name)
		}
	}
	if err := p.Deactivate(1); !errors.Is(err, ErrBusy) {
		t.Errorf("Deactivate while mounted: %v, want ErrBusy", err)
	}
	check(t, m.Sync())
	check(t, m.Close())
	check(t, m.Close())
	check(t, p.ctl.Remove(p.cfg.thinUUID(1))) // at once, without a retry
	path, err := p.Activate(1, KindImage, deviceSize, true)
	check(t, err)
	before := digest(t, path)
	in, err := MountDetached(path, ext4.MountInspect)
	check(t, err)
	defer func() { check(t, in.Close()) }()
	if got := read(t, in, "hello"); got != "world" {
		t.Errorf("read %q", got)
	}
	if err := unix.Mkdirat(int(in.Root().Fd()), "x", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("mkdir on an inspected mount: %v, want EROFS", err)
	}
	check(t, in.Sync())
	check(t, in.Close())
	if digest(t, path) != before {
		t.Error("inspecting changed the device")
	}
}

func openIn2(m *ext4.Mount, name string, resolve uint64) error {
	fd, err := unix.Openat2(int(m.Root().Fd()), name,
		&unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: resolve})
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func write(t *testing.T, m *ext4.Mount, name, text string) {
	t.Helper()
	fd, err := unix.Openat2(int(m.Root().Fd()), name,
		&unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_CLOEXEC, Mode: 0o644, Resolve: unix.RESOLVE_BENEATH})
	check(t, err)
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	check(t, err)
	check(t, f.Close())
}

func read(t *testing.T, m *ext4.Mount, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(m.Root().Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(f)
	check(t, err)
	return string(b)
}

// No crash can leak a mount: it is gone with the process, at once.
func TestMountDiesWithItsProcess(t *testing.T) {
	p, _, m := newMount(t)
	check(t, m.Close())
	path, err := p.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	_, kill := other(t, "mount", path)
	if err := p.ctl.Remove(p.cfg.thinUUID(1)); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("not mounted: %v", err)
	}
	kill()
	check(t, p.ctl.Remove(p.cfg.thinUUID(1)))
	check(t, p.Deactivate(1)) // the node that a removal past us left
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("node: %v", err)
	}
}

// Whatever a full pool swallowed is reported by Sync, not lost.
func TestSyncReportsFullPool(t *testing.T) {
	cfg := newConfig(t, 16*mib, minMetadataSize)
	p := created(t, cfg)
	path := newImage(t, p)
	check(t, MakeFilesystem(t.Context(), path, cfg.UUID))
	m, err := MountDetached(path, ext4.MountBuild)
	check(t, err)
	write(t, m, "big", strings.Repeat("0123456789abcdef", 2<<20))
	if err := m.Sync(); err == nil {
		t.Error("32 MiB in a pool of 16 are on disk, says Sync")
	} else {
		t.Log(err)
	}
	check(t, m.Close())
}

func TestMountErrors(t *testing.T) {
	p, path, m := newMount(t)
	_, err := MountDetached(path, ext4.MountInspect) // read-write already
	if !errors.Is(err, ErrBusy) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("second mount: %v, want ErrBusy and EBUSY", err)
	}
	check(t, m.Close())
	check(t, p.CreateThin(2))
	blank, err := p.Activate(2, KindImage, deviceSize, false)
	check(t, err)
	_, err = MountDetached(blank, ext4.MountBuild)
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), blank) {
		t.Errorf("blank device: %v, want EINVAL", err)
	}
	if _, err := MountDetached("/dev/mapper/cim-none", ext4.MountInspect); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no device: %v, want ENOENT", err)
	}
}
