package dmctl

import (
	"bytes"
	"maps"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An answer beyond the device's status gets minAnswer bytes at first, and twice as many
// each time they do not suffice, up to maxAnswer.
const (
	minAnswer = 16 << 10
	maxAnswer = 64 << 20
)

// request is the variable part of an ioctl. Devices are addressed by UUID, or by name
// where they have none yet.
type request struct {
	name, uuid string
	number     uint64 // of a device to create; if 0, the kernel chooses
	flags      uint32
	event      uint32
	targets    uint32
	payload    []byte
}

// commands names the ioctls that a pool makes, as linux/dm-ioctl.h does.
var commands = map[uint]string{
	unix.DM_DEV_CREATE:   "dev_create",
	unix.DM_DEV_REMOVE:   "dev_remove",
	unix.DM_DEV_STATUS:   "dev_status",
	unix.DM_DEV_SUSPEND:  "dev_suspend", // resumes as well
	unix.DM_LIST_DEVICES: "list_devices",
	unix.DM_TABLE_LOAD:   "table_load",
	unix.DM_TABLE_STATUS: "table_status",
	unix.DM_TARGET_MSG:   "target_msg",
}

// Commands returns the names of the ioctls that a pool makes.
func Commands() []string { return slices.Sorted(maps.Values(commands)) }

// spaceFor is what the answer to a command gets at first. Most have nothing but the
// status in the header; one of these is asked for every message about an image.
func spaceFor(cmd uint) int {
	switch cmd {
	case unix.DM_DEV_CREATE, unix.DM_DEV_REMOVE, unix.DM_DEV_STATUS, unix.DM_DEV_SUSPEND, unix.DM_TABLE_LOAD:
		return 0
	}
	return minAnswer
}

// call makes one ioctl. The answer's data is a copy. The error is the bare errno.
func (c *Control) call(cmd uint, r request) (Device, []byte, error) {
	for space := spaceFor(cmd); ; space = max(minAnswer, 2*space) {
		buf, err := r.pack(space)
		if err != nil {
			return Device{}, nil, err
		}
		began := time.Now()
		err = c.ioctl(cmd, unsafe.Pointer(&buf[0]))
		if c.Observe != nil {
			c.Observe(commands[cmd], time.Since(began))
		}
		if err != nil {
			return Device{}, nil, err
		}
		d, data, full := unpack(buf)
		if !full {
			return d, data, nil
		}
		if space >= maxAnswer { // the ioctl "succeeded", but its answer did not fit
			return Device{}, nil, unix.E2BIG
		}
	}
}

// ioctl returns the bare errno, or os.ErrClosed.
func (c *Control) ioctl(cmd uint, arg unsafe.Pointer) error {
	conn, err := c.f.SyscallConn()
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

// pack lays the request out as struct dm_ioctl, followed by its payload and space for the
// answer.
func (r request) pack(space int) ([]byte, error) {
	buf := make([]byte, unix.SizeofDmIoctl+max(space, len(r.payload)))
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	if len(r.name) >= len(h.Name) || len(r.uuid) >= len(h.Uuid) {
		return nil, unix.ENAMETOOLONG
	}
	h.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}
	h.Data_size, h.Data_start = uint32(len(buf)), unix.SizeofDmIoctl
	h.Flags, h.Dev, h.Event_nr, h.Target_count = r.flags, r.number, r.event, r.targets
	copy(h.Name[:], r.name)
	copy(h.Uuid[:], r.uuid)
	copy(buf[unix.SizeofDmIoctl:], r.payload)
	return buf, nil
}

func unpack(buf []byte) (d Device, data []byte, full bool) {
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	d = Device{
		Name: text(h.Name[:]), UUID: text(h.Uuid[:]), Number: h.Dev, flags: h.Flags, Open: int(h.Open_count),
	}
	start, end := int(h.Data_start), min(int(h.Data_size), len(buf))
	if start < end {
		data = buf[start:end]
	}
	return d, data, h.Flags&unix.DM_BUFFER_FULL_FLAG != 0
}

// text returns the C string in a buffer of fixed size.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
