package dmctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is the directory of the devices' names.
const Dir = "/dev/mapper/"

// Path returns the device's public path, /dev/mapper/NAME.
func (d Device) Path() string { return Dir + d.Name }

// kernelNode returns the path of the node that the kernel makes on a devtmpfs.
func (d Device) kernelNode() string { return fmt.Sprintf("/dev/dm-%d", unix.Minor(d.Number)) }

// WorkPath returns the path for the caller's own work on the device: the kernel's node. A
// /dev without devtmpfs has none, and no udevd either; there WorkPath makes the public
// path.
func (d Device) WorkPath() (string, error) {
	if path := d.kernelNode(); isNode(path, d.Number) {
		return path, nil
	}
	return d.Path(), d.MakeNode()
}

// WorkPath returns the WorkPath of the device that path names. Other paths are returned
// as they are.
func (c *Control) WorkPath(path string) (string, error) {
	name, below := strings.CutPrefix(path, Dir)
	if !below {
		return path, nil
	}
	d, err := c.FindName(name)
	if errors.Is(err, ErrNotFound) {
		return path, nil
	}
	if err != nil {
		return "", fmt.Errorf("status of %s: %w", name, err)
	}
	return d.WorkPath()
}

// MakeNode makes the public path unless udev has. Like udev it makes a link to the
// kernel's node, and udev leaves such a link alone. On a /dev without that node it makes
// a device node. It replaces a node of another device in one step.
func (d Device) MakeNode() error {
	path := d.Path()
	if isNode(path, d.Number) {
		return nil
	}
	err := d.makeNode(path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := fmt.Sprintf("%s.%s.%d", Dir, d.Name, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.makeNode(temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func (d Device) makeNode(path string) error {
	if isNode(d.kernelNode(), d.Number) {
		return os.Symlink("../"+filepath.Base(d.kernelNode()), path)
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(d.Number)); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// RemoveNode removes the public path of a removed device, unless udev has. A path that
// leads to another device now is left alone.
func (d Device) RemoveNode() error {
	path := d.Path()
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Rdev != d.Number {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveStaleNodes removes the public paths of these names if there is no such device. A
// crash right after the removal of a device leaves one.
func (c *Control) RemoveStaleNodes(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Lstat(Dir + name); err != nil {
			continue
		}
		if _, err := c.FindName(name); !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(Dir + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isNode reports whether path is the block device of this number. It follows links.
func isNode(path string, number uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == number
}
