package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Probe tells whether this machine can have a thin pool: root, device-mapper with the
// thin-pool target, ext4, the system calls for detached mounts, and the tools. The kernel
// loads the modules that it needs for the answer. The error is ErrUnavailable with a
// remedy.
func Probe() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	c, err := openControl()
	if err != nil {
		return fmt.Errorf("%w (modprobe dm-mod; in a container, give it %s and CAP_SYS_ADMIN)", err, controlPath)
	}
	defer c.f.Close()
	if err := c.hasTarget(targetPool); err != nil {
		return fmt.Errorf("%w: the kernel has no %s target: %w (modprobe dm-thin-pool)",
			ErrUnavailable, targetPool, err)
	}
	fd, err := unix.Fsopen(filesystem, unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel has no fsopen: %w (Linux 5.8 or later)", ErrUnavailable, err)
	case err != nil:
		return fmt.Errorf("%w: fsopen %s: %w (modprobe %s; CAP_SYS_ADMIN)", ErrUnavailable, filesystem, err, filesystem)
	}
	_, err = findTool(mke2fs)
	_, cerr := findTool(thinCheck)
	return errors.Join(unix.Close(fd), err, cerr)
}

// hasTarget asks for the version of a target, which makes the kernel load its module.
func (c control) hasTarget(name string) error {
	_, _, err := c.call(unix.DM_GET_TARGET_VERSION, request{name: name})
	return err
}
