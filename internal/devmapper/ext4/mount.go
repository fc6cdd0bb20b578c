package ext4

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// MountMode is the purpose of a mount.
type MountMode int

// The modes of mounts.
const (
	MountBuild   MountMode = iota // writable, to fill a device
	MountInspect                  // read-only without journal replay: not a byte of the device changes
)

// errBroken marks a file system that stopped taking writes.
var errBroken = errors.New("file system went read-only after an error")

// Mount is a detached mount: it has no place in any directory tree and no line in any
// mount table. It is used through its root descriptor only, and no other process sees it.
// It ends when that descriptor and all those opened through it are closed, or when the
// process dies. So no crash can leak one.
type Mount struct {
	mount *os.File // of fsmount(2); O_PATH
	root  *os.File
	mode  MountMode
}

// MountDetached mounts the file system on a block device. Nothing in it can act: this
// mount honours no device nodes, set-uid bits, execution or symlinks.
//
// Errors carry errno and the kernel's text: EBUSY if it is mounted in another mode or
// open exclusively, EINVAL if it holds no ext4.
func MountDetached(device string, mode MountMode) (*Mount, error) {
	fs, err := unix.Fsopen(filesystem, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if err := configure(fs, device, mode); err != nil {
		return nil, explain(fs, err)
	}
	fd, err := fsmount(fs, mode)
	if err != nil {
		return nil, explain(fs, err)
	}
	m := &Mount{mount: os.NewFile(uintptr(fd), device), mode: mode}
	// The descriptor of fsmount is O_PATH: syncfs and reading directories need an open
	// one.
	root, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open its root: %w", err), m.mount.Close())
	}
	m.root = os.NewFile(uintptr(root), device+":/")
	return m, nil
}

// configure sets source and options and makes the superblock. Without noinit_itable the
// kernel would zero inode tables in the background, and so map a hundred times as many
// blocks of a thin device as the file system needs.
func configure(fs int, path string, mode MountMode) error {
	flags := []string{"noinit_itable"}
	if mode == MountInspect {
		flags = []string{"ro", "noload"}
	}
	if err := unix.FsconfigSetString(fs, "source", path); err != nil {
		return fmt.Errorf("set source: %w", err)
	}
	for _, flag := range flags {
		if err := unix.FsconfigSetFlag(fs, flag); err != nil {
			return fmt.Errorf("set %s: %w", flag, err)
		}
	}
	return unix.FsconfigCreate(fs)
}

// fsmount retries without nosymfollow on kernels before 5.14. Code that writes through
// the mount follows no links anyway.
func fsmount(fs int, mode MountMode) (int, error) {
	attrs := unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME
	if mode == MountInspect {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs|unix.MOUNT_ATTR_NOSYMFOLLOW)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	}
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return fd, nil
}

// explain adds the kernel's messages about the context. A read returns one message, with
// a letter for its level in front.
func explain(fs int, err error) error {
	var lines []string
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 0 { // ENODATA: no more
			break
		}
		lines = append(lines, strings.TrimSpace(string(buf[:n])))
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(lines, "; "))
}

// Root returns the root directory, open for reading and as the start of openat2(2). It
// belongs to the mount; do not close it.
func (m *Mount) Root() *os.File { return m.root }

// Sync writes everything down to the device and reports every failure since the mount was
// made, those in the background included. When it returns nil, the files survive a power
// cut, and so does a thin pool's mapping of their blocks.
func (m *Mount) Sync() error {
	failpoint.Here("before", "sync")
	defer failpoint.Here("after", "sync")
	var err error
	conn, cerr := m.root.SyscallConn()
	if cerr != nil {
		return cerr
	}
	cerr = conn.Control(func(fd uintptr) { err = unix.Syncfs(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("sync %s: %w", m.mount.Name(), err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.root.Fd()), &st); err != nil {
		return fmt.Errorf("sync %s: %w", m.mount.Name(), err)
	}
	// After an error ext4 aborts its journal, and later syncs find nothing to do.
	if m.mode == MountBuild && st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("sync %s: %w: %w", m.mount.Name(), errBroken, unix.EROFS)
	}
	return nil
}

// Close unmounts once everything opened through the root is closed. That may be a moment
// later: a process just being started by another goroutine has the descriptors until it
// calls exec. Close may be called twice.
func (m *Mount) Close() error {
	failpoint.Here("before", "unmount")
	defer failpoint.Here("after", "unmount")
	err := errors.Join(m.root.Close(), m.mount.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
