package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const mapperDir = "/dev/mapper/"

// The names in /dev/mapper are for others. udevd may take one away for a moment, and
// makes it again; so our own work goes by the kernel's node, /dev/dm-N, which udevd does
// not remove.

// kernelNode is the device's node that the kernel makes, on a devtmpfs.
func (d device) kernelNode() string { return fmt.Sprintf("/dev/dm-%d", unix.Minor(d.dev)) }

// workPath is the path for our own work on the device: the kernel's node, or one that is
// made where /dev is no devtmpfs, and then no udevd's either.
func workPath(d device) (string, error) {
	if path := d.kernelNode(); nodeIs(path, d.dev) {
		return path, nil
	}
	return d.nodePath(), makeNode(d)
}

// resolve returns the path for our own work on what path names. What is no name of a
// device-mapper device is left as it is.
func resolve(path string) (string, error) {
	name, mapper := strings.CutPrefix(path, mapperDir)
	if !mapper {
		return path, nil
	}
	ctl, err := openControl()
	if err != nil {
		return "", err
	}
	defer ctl.f.Close()
	d, err := ctl.findName(name)
	if errors.Is(err, ErrNotFound) {
		return path, nil
	}
	if err != nil {
		return "", fmt.Errorf("status of %s: %w", name, err)
	}
	return workPath(d)
}

// makeNode makes /dev/mapper/NAME where udev has not: a link to the kernel's node, as
// udev does, which leaves it alone then. Where there is no such node it makes one. What
// another device left behind is replaced in one step.
func makeNode(d device) error {
	path := d.nodePath()
	if nodeIs(path, d.dev) {
		return nil
	}
	temp := fmt.Sprintf("%s.%s.%d", mapperDir, d.name, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var err error
	if nodeIs(d.kernelNode(), d.dev) {
		err = os.Symlink("../"+filepath.Base(d.kernelNode()), temp)
	} else {
		err = unix.Mknod(temp, unix.S_IFBLK|0o600, int(d.dev))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return os.Rename(temp, path)
}

// nodeIs follows links: udev's are links to /dev/dm-N.
func nodeIs(path string, dev uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev
}

// removeNode removes the node of a device that is gone, if udev has not. It leaves a node
// that stands for another device by now.
func removeNode(d device) error {
	path := d.nodePath()
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Rdev != d.dev {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeStaleNodes removes the nodes of these names for which there is no device: a crash
// after the removal of a device leaves one.
func removeStaleNodes(ctl control, names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Lstat(mapperDir + name); err != nil {
			continue
		}
		if _, err := ctl.findName(name); !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(mapperDir + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
