package devmapper

import (
	"errors"
	"fmt"
	"os"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
)

// Probe reports whether this machine can have a thin pool: root, device-mapper with the
// thin-pool target, ext4, the system calls for detached mounts, and the tools. The kernel
// loads the modules that it needs for the answer. The error is ErrUnavailable with a
// remedy.
func Probe() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	ctl, err := openControl()
	if err != nil {
		return fmt.Errorf("%w (modprobe dm-mod; in a container, give it %s and CAP_SYS_ADMIN)", err, dmctl.ControlPath)
	}
	defer ctl.Close()
	if err := ctl.CheckTarget(targetPool); err != nil {
		return fmt.Errorf("%w: the kernel has no %s target: %w (modprobe dm-thin-pool)",
			ErrUnavailable, targetPool, err)
	}
	_, missing := thinCheck.Find()
	if err := errors.Join(ext4.Probe(), missing); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
