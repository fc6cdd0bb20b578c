// Package dmctl creates, activates and removes device-mapper devices.
//
// It talks to the kernel by the ioctls of /dev/mapper/control (linux/dm-ioctl.h), so a
// failed step has a real errno, and there is no child process that could be left
// half-way.
//
// A device has a name, a UUID and a number. It becomes usable in three steps: Create,
// Load with a Table, Resume. A crash between them leaves a device without a live table;
// the same steps finish it, and Remove takes it away. The kernel refuses a second device
// of the same UUID.
//
// The names in /dev/mapper are for other programs. udevd may take a name away for a
// moment and make it again, so a program's own work goes by the kernel's node, /dev/dm-N.
// udevd does not remove that one: see Device.WorkPath.
//
// Not promised: tables of more than one target, and exclusion of other programs. Needs
// root.
package dmctl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotFound is returned when there is no device of a UUID or name.
var ErrNotFound = errors.New("no such device-mapper device")

// errMalformed marks an answer of the kernel without the documented form.
var errMalformed = errors.New("malformed")

// Device is the kernel's description of a device at the time of a call.
type Device struct {
	Name   string
	UUID   string
	Number uint64 // device number, as st_rdev has it
	Open   int    // number of openers, mounts and other dm devices included
	flags  uint32
}

// Live reports whether the device has a table in force.
func (d Device) Live() bool { return d.flags&unix.DM_ACTIVE_PRESENT_FLAG != 0 }

// Suspended reports whether the device holds back all I/O.
func (d Device) Suspended() bool { return d.flags&unix.DM_SUSPEND_FLAG != 0 }

// ReadOnly reports whether the device refuses writes.
func (d Device) ReadOnly() bool { return d.flags&unix.DM_READONLY_FLAG != 0 }

// MajorMinor returns the device's number as tables and sysfs write it.
func (d Device) MajorMinor() string { return MajorMinor(d.Number) }

// MajorMinor formats a device number as tables and sysfs write it: major:minor.
func MajorMinor(number uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
}
