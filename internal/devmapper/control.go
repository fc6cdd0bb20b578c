package devmapper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

const (
	controlPath = "/dev/mapper/control"
	firstRoom   = 16 << 10 // bytes for the kernel's answer; doubled while it says that they do not suffice
	mostRoom    = 64 << 20

	// quietUdev goes into the upper half of event_nr on activation, where libdevmapper
	// puts its flags for the udev rules: no probing of contents, no rules but dm's own
	// (DM_UDEV_DISABLE_SUBSYSTEM_RULES, _DISK_RULES, _OTHER_RULES and PRIMARY_SOURCE in
	// libdevmapper.h). udev that opens a device to look for a file system makes its
	// removal fail. The lower half, a cookie that someone would have to wait for, stays
	// zero.
	quietUdev = (0x2 | 0x4 | 0x8 | 0x40) << 16
)

// control is the door to the kernel's device-mapper. It has no state but the descriptor
// and may be used by several goroutines.
type control struct{ f *os.File }

func openControl() (control, error) {
	f, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	if err != nil {
		return control{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return control{f}, nil
}

func (c control) close() error { return c.f.Close() }

// request is what varies between the ioctls. Devices are addressed by UUID, or by name
// where they have none yet.
type request struct {
	name, uuid string
	dev        uint64 // number of a device to create; if 0, the kernel chooses
	flags      uint32
	event      uint32
	targets    uint32
	payload    []byte
}

// device is what every ioctl tells about its device.
type device struct {
	name, uuid string
	dev        uint64 // device number
	flags      uint32
	open       int // how many have it open, mounts and other dm devices included
}

func (d device) live() bool { return d.flags&unix.DM_ACTIVE_PRESENT_FLAG != 0 }

func (d device) suspended() bool { return d.flags&unix.DM_SUSPEND_FLAG != 0 }

func (d device) readOnly() bool { return d.flags&unix.DM_READONLY_FLAG != 0 }

func (d device) majmin() string { return majmin(d.dev) }

func (d device) nodePath() string { return mapperDir + d.name }

func majmin(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// change makes one ioctl that changes something. Each is a failpoint of the crash tests,
// before and after it. what is its name there.
func (c control) change(cmd uint, what string, r request) (device, error) {
	kind := "thin"
	if strings.HasSuffix(r.uuid, poolSuffix) {
		kind = "pool"
	}
	failpoint.Here("before", what, kind)
	d, _, err := c.call(cmd, r)
	failpoint.Here("after", what, kind)
	return d, err
}

// call makes one ioctl. The answer's data is a copy. The error is the bare errno.
func (c control) call(cmd uint, r request) (device, []byte, error) {
	for room := firstRoom; ; room *= 2 {
		buf, err := r.pack(room)
		if err != nil {
			return device{}, nil, err
		}
		if err := ioctl(c.f, cmd, unsafe.Pointer(&buf[0])); err != nil {
			return device{}, nil, err
		}
		d, data, full := unpack(buf)
		if !full {
			return d, data, nil
		}
		if room >= mostRoom { // "success" of an ioctl whose answer did not fit
			return device{}, nil, unix.E2BIG
		}
	}
}

// ioctl makes one ioctl on an open file. The error is the bare errno, or os.ErrClosed.
func ioctl(f *os.File, cmd uint, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(cmd), uintptr(arg))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// pack lays the request out as struct dm_ioctl, followed by its payload and room for the
// answer.
func (r request) pack(room int) ([]byte, error) {
	buf := make([]byte, unix.SizeofDmIoctl+max(room, len(r.payload)))
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	if len(r.name) >= len(h.Name) || len(r.uuid) >= len(h.Uuid) {
		return nil, unix.ENAMETOOLONG
	}
	h.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}
	h.Data_size, h.Data_start = uint32(len(buf)), unix.SizeofDmIoctl
	h.Flags, h.Dev, h.Event_nr, h.Target_count = r.flags, r.dev, r.event, r.targets
	copy(h.Name[:], r.name)
	copy(h.Uuid[:], r.uuid)
	copy(buf[unix.SizeofDmIoctl:], r.payload)
	return buf, nil
}

func unpack(buf []byte) (d device, data []byte, full bool) {
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	d = device{
		name: text(h.Name[:]), uuid: text(h.Uuid[:]), dev: h.Dev, flags: h.Flags, open: int(h.Open_count),
	}
	start, end := int(h.Data_start), min(int(h.Data_size), len(buf))
	if start < end {
		data = buf[start:end]
	}
	return d, data, h.Flags&unix.DM_BUFFER_FULL_FLAG != 0
}

// text is a C string in a buffer of fixed size.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// find returns the device of this UUID, or ErrNotFound.
func (c control) find(uuid string) (device, error) {
	return found(c.call(unix.DM_DEV_STATUS, request{uuid: uuid}))
}

func (c control) findName(name string) (device, error) {
	return found(c.call(unix.DM_DEV_STATUS, request{name: name}))
}

func found(d device, _ []byte, err error) (device, error) {
	if errors.Is(err, unix.ENXIO) {
		return d, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return d, err
}

// load gives the device a new table of one target, which resume puts in place of the live
// one.
func (c control) load(uuid string, t table, readOnly bool) error {
	r := request{uuid: uuid, targets: 1, payload: t.pack()}
	if readOnly {
		r.flags = unix.DM_READONLY_FLAG
	}
	_, err := c.change(unix.DM_TABLE_LOAD, "load", r)
	return err
}

// resume puts the loaded table in force and lets I/O go. If a live table is replaced, the
// kernel suspends, swaps and resumes within this one call: no crash of ours can fall
// between.
func (c control) resume(uuid string) error {
	_, err := c.change(unix.DM_DEV_SUSPEND, "resume", request{uuid: uuid, event: quietUdev})
	return err
}

func (c control) suspend(uuid string) error {
	_, err := c.change(unix.DM_DEV_SUSPEND, "suspend",
		request{uuid: uuid, flags: unix.DM_SUSPEND_FLAG, event: quietUdev})
	return err
}

func (c control) remove(uuid string) error {
	_, err := c.change(unix.DM_DEV_REMOVE, "remove", request{uuid: uuid, event: quietUdev})
	return err
}

// message sends a text to the device's first target. Not promised: that a pool's commit
// behind it succeeded (dm-thin.c drops the result), see Pool.message.
func (c control) message(uuid, msg string) error {
	payload := make([]byte, 8+len(msg)+1) // struct dm_target_msg: sector 0, then the text and its NUL
	copy(payload[8:], msg)
	verb, _, _ := strings.Cut(msg, " ")
	_, err := c.change(unix.DM_TARGET_MSG, verb, request{uuid: uuid, payload: payload})
	return err
}

// status returns the live table's target with its status, without waiting for a commit.
func (c control) status(uuid string) (device, table, error) {
	return c.read(uuid, unix.DM_NOFLUSH_FLAG)
}

// liveTable returns the live table.
func (c control) liveTable(uuid string) (device, table, error) {
	return c.read(uuid, unix.DM_NOFLUSH_FLAG|unix.DM_STATUS_TABLE_FLAG)
}

func (c control) read(uuid string, flags uint32) (device, table, error) {
	d, data, err := c.call(unix.DM_TABLE_STATUS, request{uuid: uuid, flags: flags})
	if err != nil {
		return d, table{}, err
	}
	if !d.live() {
		return d, table{}, fmt.Errorf("%s has no live table: %w", d.name, unix.ENODATA)
	}
	t, err := unpackTable(data)
	if err != nil {
		return d, table{}, fmt.Errorf("table of %s: %w", d.name, err)
	}
	return d, t, nil
}

// withPrefix returns the devices whose UUID begins with prefix. Only newer kernels list
// UUIDs, so each device is asked.
func (c control) withPrefix(prefix string) ([]device, error) {
	_, data, err := c.call(unix.DM_LIST_DEVICES, request{})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names, err := unpackNames(data)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var list []device
	for _, name := range names {
		d, err := c.findName(name)
		if errors.Is(err, ErrNotFound) { // removed since it was listed
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", name, err)
		}
		if strings.HasPrefix(d.uuid, prefix) {
			list = append(list, d)
		}
	}
	return list, nil
}
