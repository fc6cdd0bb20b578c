package dmctl

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// ControlPath is the file that all ioctls go through.
const ControlPath = Dir + "control"

// quietUdev goes into the upper half of event_nr on activation, where libdevmapper puts
// its flags for the udev rules: no probing of contents, no rules but dm's own
// (DM_UDEV_DISABLE_SUBSYSTEM_RULES, _DISK_RULES, _OTHER_RULES and PRIMARY_SOURCE in
// libdevmapper.h). A udev that opens a device to look for a file system makes its removal
// fail. The lower half is a cookie for somebody to wait for; it stays zero.
const quietUdev = (0x2 | 0x4 | 0x8 | 0x40) << 16

// Control is a handle of the kernel's device-mapper. It has no state but its descriptor
// and may be used by several goroutines.
type Control struct {
	f      *os.File
	kindOf func(uuid string) string

	// Observe is called after each ioctl with its name in Commands. It may be nil, and is
	// set before the first call.
	Observe func(command string, took time.Duration)
}

// Open opens the device-mapper. kindOf classifies devices by UUID, to name the failpoints
// of the crash tests.
func Open(kindOf func(uuid string) string) (*Control, error) {
	f, err := os.OpenFile(ControlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Control{f: f, kindOf: kindOf}, nil
}

// Close closes the handle; devices stay as they are.
func (c *Control) Close() error { return c.f.Close() }

// change makes one ioctl that changes something. Each is a failpoint of the crash tests,
// before and after it; what is its name there.
func (c *Control) change(cmd uint, what string, r request) (Device, error) {
	kind := c.kindOf(r.uuid)
	failpoint.Here("before", what, kind)
	d, _, err := c.call(cmd, r)
	failpoint.Here("after", what, kind)
	return d, err
}

// Find returns the device of this UUID, or ErrNotFound.
func (c *Control) Find(uuid string) (Device, error) {
	return found(c.call(unix.DM_DEV_STATUS, request{uuid: uuid}))
}

// FindName returns the device of this name, or ErrNotFound.
func (c *Control) FindName(name string) (Device, error) {
	return found(c.call(unix.DM_DEV_STATUS, request{name: name}))
}

func found(d Device, _ []byte, err error) (Device, error) {
	if errors.Is(err, unix.ENXIO) {
		return d, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return d, err
}

// List returns the devices whose UUID begins with prefix. Only newer kernels list UUIDs,
// so each device of the machine is asked.
func (c *Control) List(prefix string) ([]Device, error) {
	_, data, err := c.call(unix.DM_LIST_DEVICES, request{})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names, err := unpackNames(data)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var list []Device
	for _, name := range names {
		d, err := c.FindName(name)
		if errors.Is(err, ErrNotFound) { // removed since it was listed
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", name, err)
		}
		if strings.HasPrefix(d.UUID, prefix) {
			list = append(list, d)
		}
	}
	return list, nil
}

// Load gives the device a new table. The live table stays in force until Resume.
func (c *Control) Load(uuid string, t Table, readOnly bool) error {
	r := request{uuid: uuid, targets: 1, payload: t.pack()}
	if readOnly {
		r.flags = unix.DM_READONLY_FLAG
	}
	_, err := c.change(unix.DM_TABLE_LOAD, "load", r)
	return err
}

// Resume puts the loaded table in force and lets I/O go. To replace a live table, the
// kernel suspends, swaps and resumes within this one call: no crash of this process can
// fall between.
func (c *Control) Resume(uuid string) error {
	_, err := c.change(unix.DM_DEV_SUSPEND, "resume", request{uuid: uuid, event: quietUdev})
	return err
}

// Remove removes the device, but not its name in /dev/mapper. EBUSY is returned while
// somebody has it open, ENXIO when there is no such device.
func (c *Control) Remove(uuid string) error {
	_, err := c.change(unix.DM_DEV_REMOVE, "remove", request{uuid: uuid, event: quietUdev})
	return err
}

// Message sends a text to the device's target.
func (c *Control) Message(uuid, msg string) error {
	payload := make([]byte, 8+len(msg)+1) // struct dm_target_msg: sector 0, the text, NUL
	copy(payload[8:], msg)
	verb, _, _ := strings.Cut(msg, " ")
	_, err := c.change(unix.DM_TARGET_MSG, verb, request{uuid: uuid, payload: payload})
	return err
}

// Status returns the live table with the target's status for parameters. It does not wait
// for a commit. ENODATA is returned when no table is live.
func (c *Control) Status(uuid string) (Device, Table, error) {
	return c.read(uuid, unix.DM_NOFLUSH_FLAG)
}

// LiveTable returns the live table. ENODATA is returned when there is none.
func (c *Control) LiveTable(uuid string) (Device, Table, error) {
	return c.read(uuid, unix.DM_NOFLUSH_FLAG|unix.DM_STATUS_TABLE_FLAG)
}

func (c *Control) read(uuid string, flags uint32) (Device, Table, error) {
	d, data, err := c.call(unix.DM_TABLE_STATUS, request{uuid: uuid, flags: flags})
	if err != nil {
		return d, Table{}, err
	}
	if !d.Live() {
		return d, Table{}, fmt.Errorf("%s has no live table: %w", d.Name, unix.ENODATA)
	}
	t, err := unpackTable(data)
	if err != nil {
		return d, Table{}, fmt.Errorf("table of %s: %w", d.Name, err)
	}
	return d, t, nil
}

// CheckTarget asks for the version of a target type, and so makes the kernel load its
// module. The error is the bare errno.
func (c *Control) CheckTarget(name string) error {
	_, _, err := c.call(unix.DM_GET_TARGET_VERSION, request{name: name})
	return err
}
