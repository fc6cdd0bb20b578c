package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// mounting is where and how a snapshot is to be mounted.
type mounting struct {
	dir      string
	writable bool
}

// addTo adds the flags.
func (m *mounting) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.dir, "mount", "", "mount the snapshot at this directory: nosuid, nodev, and read-only")
	cmd.Flags().BoolVar(&m.writable, "writable", false, "mount it so that it can be written to")
	_ = cmd.MarkFlagDirname("mount")
}

// mounted is a snapshot with its place in the directory tree.
type mounted struct {
	store.Snapshot
	At       string `json:"mounted_at,omitempty"`
	Writable bool   `json:"writable,omitempty"`
}

// prepare makes the directory absolute, and refuses one that hides something.
func (m *mounting) prepare() (err error) {
	if m.dir == "" {
		if m.writable {
			return &usageError{errors.New("--writable is about a mount: give --mount DIR")}
		}
		return nil
	}
	if m.dir, err = filepath.Abs(m.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: a mount would hide what is in it; give another directory", m.dir)
	}
	return err
}

// mount mounts a snapshot, if that is asked for. It makes the directory if there is none,
// and umount removes it again. A failure leaves nothing behind.
func (c config) mount(sn store.Snapshot, m mounting) (err error) {
	if m.dir == "" {
		return nil
	}
	err = os.Mkdir(m.dir, 0o755)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err = devmapper.Mount(sn.Path, m.dir, m.writable); err == nil && made {
		if err = c.noteMade(sn, m.dir); err != nil {
			err = errors.Join(err, devmapper.Unmount(m.dir))
		}
	}
	if err != nil && made {
		err = errors.Join(err, os.Remove(m.dir))
	}
	return err
}

// madeFile has the directory that was made for a snapshot's newest mount.
func (c config) madeFile(sn store.Snapshot) string {
	return filepath.Join(c.StateDir, "mounts", fmt.Sprint(sn.Device))
}

func (c config) noteMade(sn store.Snapshot, dir string) error {
	file := c.madeFile(sn)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(dir), 0o600)
}

// forgetMade removes the directory if it was made for the mount. What somebody has put
// into it meanwhile stays.
func (c config) forgetMade(sn store.Snapshot, dir string) error {
	file := c.madeFile(sn)
	made, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(made) != dir {
		return nil
	}
	if err == nil {
		err = os.Remove(file)
	}
	if err == nil {
		_ = os.Remove(dir) // fails if it is not empty
	}
	return err
}

// printMounted shows the snapshot, and where it is mounted.
func (o *output) printMounted(sn store.Snapshot, m mounting) error {
	switch {
	case o.asJSON:
		return printJSON(o.out, []mounted{{sn, m.dir, m.writable}})
	case m.dir == "":
		return o.printSnapshots([]store.Snapshot{sn})
	}
	how := "read-only"
	if m.writable {
		how = "writable"
	}
	_, err := fmt.Fprintf(o.out, "%s: snapshot %s of image %d (%s), %s, nosuid, nodev\n"+
		"the image's root file system is %s; `consumer umount %s` ends the mount\n",
		m.dir, sn.Path, sn.Image, quoted(sn.Key), how, filepath.Join(m.dir, "rootfs"), m.dir)
	return err
}
