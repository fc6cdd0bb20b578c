package direct

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper/ext4"
)

// seen is what the kernel says of a tree: its inventory, and of each name what the
// inventory leaves aside.
type seen struct {
	*fstree.Inventory
	beside map[string]string
}

// look reads a disk through a fresh mount, and the seal record.
func (d *disk) look() seen {
	d.t.Helper()
	m, err := ext4.MountDetached(d.path, ext4.MountInspect)
	check(d.t, err)
	defer func() { check(d.t, m.Close()) }()
	got, err := extract.ReadSealRecord(m.Root())
	check(d.t, err)
	if !bytes.Equal(got, record) {
		d.t.Errorf("the seal record is %q", got)
	}
	found, err := extract.ReadBack(d.t.Context(), m.Root())
	check(d.t, err)
	return seen{found, beside(d.t, m.Root())}
}

// beside looks every name up and says of it: links, sizes of all but directories, blocks,
// times. A name that a directory lists twice, or that is not found, is a failure.
func beside(t testing.TB, root *os.File) map[string]string {
	t.Helper()
	list := map[string]string{}
	top := fmt.Sprintf("/proc/self/fd/%d", root.Fd())
	check(t, filepath.WalkDir(top+"/rootfs", func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		text := fmt.Sprintf("%o links %d, modified %d.%09d, accessed %d.%09d",
			st.Mode, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec, st.Atim.Sec, st.Atim.Nsec)
		if !e.IsDir() {
			text += fmt.Sprintf(", %d bytes", st.Size)
		}
		if e.Type() != os.FileMode(0) && e.Type()&os.ModeType != modeType(st.Mode) {
			t.Errorf("%s: type %v in its directory, mode %o", path, e.Type(), st.Mode)
		}
		name := path[len(top):]
		if list[name] != "" {
			t.Errorf("%s is listed twice", name)
		}
		list[name] = text
		return nil
	}))
	return list
}

func modeType(mode uint32) os.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.ModeDir
	case unix.S_IFLNK:
		return os.ModeSymlink
	}
	return 0
}

// mounted lets do work on the mounted disk. Afterwards the file system is clean.
func (d *disk) mounted(do func(dir string)) {
	d.t.Helper()
	dir := d.t.TempDir()
	check(d.t, unix.Mount(d.path, dir, "ext4", 0, ""))
	defer func() {
		check(d.t, unix.Unmount(dir, 0))
		d.clean()
	}()
	do(dir)
}
