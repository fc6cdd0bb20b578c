package devmapper

import (
	"errors"
	"fmt"
	"os"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
)

// Probe returns nil if this machine can have a thin pool: it needs root, device-mapper
// with the thin-pool target, ext4, the system calls for detached mounts, and the tools.
// The kernel loads the modules for the answer. Otherwise ErrUnavailable is returned with
// a remedy.
func Probe() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	if err := ProbeTarget(); err != nil {
		return err
	}
	_, missing := thinCheck.Find()
	if err := errors.Join(ext4.Probe(), missing); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// ProbeTarget is the part of Probe about device-mapper and its thin-pool target.
func ProbeTarget() error {
	ctl, err := openControl()
	if err != nil {
		return fmt.Errorf("%w (modprobe dm-mod; in a container, give it %s and CAP_SYS_ADMIN)", err, dmctl.ControlPath)
	}
	defer ctl.Close()
	if err := ctl.CheckTarget(targetPool); err != nil {
		return fmt.Errorf("%w: the kernel has no %s target: %w (modprobe dm-thin-pool)",
			ErrUnavailable, targetPool, err)
	}
	return nil
}
