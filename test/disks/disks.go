// Package disks makes block devices for tests about power cuts and failing disks: loop
// devices of sparse files, and device-mapper devices over them, with losetup(8) and
// dmsetup(8). Whatever it makes goes when the test ends, the newest first.
package disks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sector is the unit of device-mapper tables, in bytes.
const Sector = 512

// Loop makes a sparse file of that size at path and puts it behind a loop device. The
// file is new, so the device reads as zeros.
func Loop(t testing.TB, path string, size int64) (device string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return Attach(t, path)
}

// Attach puts a file behind a loop device.
func Attach(t testing.TB, path string) (device string) {
	t.Helper()
	device = strings.TrimSpace(Run(t, "losetup", "--find", "--show", path))
	t.Cleanup(func() { Run(t, "losetup", "--detach", device) })
	return device
}

// WriteThrough makes a device end each flush at once, like one without a cache.
func WriteThrough(t testing.TB, device string) {
	t.Helper()
	setting := filepath.Join("/sys/block", filepath.Base(device), "queue/write_cache")
	if err := os.WriteFile(setting, []byte("write through"), 0); err != nil {
		t.Fatal(err)
	}
}

// Map makes /dev/mapper/NAME with a table of one line, beginning at sector 0.
func Map(t testing.TB, name, table string) (device string) {
	t.Helper()
	Run(t, "dmsetup", "create", name, "--table", table)
	t.Cleanup(func() { Run(t, "dmsetup", "remove", "--retry", name) })
	return "/dev/mapper/" + name
}

// Swap gives a device another table while it is in use. What is on its way is not waited
// for, nor is a file system frozen.
func Swap(t testing.TB, name, table string) {
	t.Helper()
	Run(t, "dmsetup", "suspend", "--noflush", "--nolockfs", name)
	load := exec.Command("dmsetup", "load", name) //nolint:noctx // quick
	load.Stdin = strings.NewReader(table)         // several lines come in here only
	if out, err := load.CombinedOutput(); err != nil {
		t.Errorf("dmsetup load %s: %v\n%s\n%s", name, err, out, table)
	}
	Run(t, "dmsetup", "resume", name)
}

// Linear is a table that passes size bytes on to a device, from offset bytes on.
func Linear(device string, offset, size int64) string {
	return fmt.Sprintf("0 %d linear %s %d", size/Sector, device, offset/Sector)
}

// FailRange is a table of size bytes that fails what lies in a range of bytes, and
// nothing else: flushes succeed.
func FailRange(device string, size, from, to int64) string {
	return fmt.Sprintf("0 %d linear %s 0\n%d %d error\n%d %d linear %s %d",
		from/Sector, device, from/Sector, (to-from)/Sector, to/Sector, (size-to)/Sector, device, to/Sector)
}

// FailWrites is a table that reads from a device and fails every write and flush with
// EIO.
func FailWrites(device string, size int64) string {
	return fmt.Sprintf("0 %d flakey %s 0 0 86400 1 error_writes", size/Sector, device)
}

// Run runs a program of the system, which must succeed, and returns what it prints.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput() //nolint:noctx // quick
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
