package devmapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// maxHolders bounds how many holders an error names.
const maxHolders = 5

// withHolders turns EBUSY into ErrBusy and names the holders of the devices. Other errors
// are returned as they are.
func withHolders(err error, devs ...uint64) error {
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	var who []string
	for _, dev := range devs {
		who = append(who, holders(dev)...)
	}
	if len(who) == 0 {
		who = []string{"the holder is not visible from here: another mount namespace, or a kernel user"}
	}
	return fmt.Errorf("%w (%s): %w", ErrBusy, strings.Join(who[:min(len(who), maxHolders)], "; "), err)
}

// withHoldersOf is withHolders for the device at path.
func withHoldersOf(err error, path string) error {
	var st unix.Stat_t
	if !errors.Is(err, unix.EBUSY) || unix.Stat(path, &st) != nil {
		return err
	}
	return withHolders(err, st.Rdev)
}

// openExclusive opens a block device that has neither a mounted file system nor another
// device on it (O_EXCL of a block device). It waits for a mount that was closed just now:
// a child just being started by another goroutine has a copy of its descriptors until it
// calls exec. After busyTimeout, ErrBusy names the holder.
func openExclusive(path string, flags int) (f *os.File, err error) {
	err = retryWhile(busyTimeout, isErrno(unix.EBUSY), func() error {
		f, err = os.OpenFile(path, flags|os.O_EXCL|unix.O_CLOEXEC, 0)
		return err
	})
	return f, withHoldersOf(err, path)
}

// holders returns everybody found to keep a block device open: devices on top of it,
// mounts, and processes that use it. Only processes reveal detached mounts, because no
// mount table lists those. A mount that this process sees is named with the command that
// ends it, another with a process that sees it.
func holders(dev uint64) []string {
	var list []string
	for _, h := range glob("/sys/dev/block/" + dmctl.MajorMinor(dev) + "/holders/*") {
		list = append(list, "under "+dmName(h))
	}
	seen := map[string]bool{} // mount points: many processes share one table
	if place := mountedIn("/proc/self", dev); place != "" {
		seen[place] = true
		list = append(list, fmt.Sprintf("mounted on %q: `umount %s` ends that", place, place))
	}
	for _, proc := range glob("/proc/[0-9]*") {
		if place := mountedIn(proc, dev); place != "" && !seen[place] {
			seen[place] = true
			list = append(list, fmt.Sprintf("mounted on %q, seen by process %s", place, processOf(proc)))
		}
	}
	return append(list, usersOf(dev)...)
}

// usersOf returns the processes that have the device open, or are in a mount of it. This
// process is named last.
func usersOf(dev uint64) []string {
	var list, own []string
	for _, proc := range glob("/proc/[0-9]*") {
		switch how := openIn(proc, dev); {
		case how == "":
		case filepath.Base(proc) == strconv.Itoa(os.Getpid()):
			own = append(own, how+" by this process")
		default:
			list = append(list, how+" by process "+processOf(proc))
		}
	}
	return append(list, own...)
}

// processOf names a process by its number and its program.
func processOf(proc string) string {
	return fmt.Sprintf("%s (%s)", filepath.Base(proc), firstLine(proc+"/comm"))
}

// mountedIn returns the place where a process sees the device mounted, or "".
func mountedIn(proc string, dev uint64) string {
	mounts, err := readMounts(proc)
	if err != nil { // the process has ended
		return ""
	}
	for _, m := range mounts {
		if m.device == dmctl.MajorMinor(dev) {
			return m.point
		}
	}
	return ""
}

// openIn looks for the device, or a file on it, among the descriptors of a process, its
// directories and its program.
func openIn(proc string, dev uint64) string {
	for _, fd := range append(glob(proc+"/fd/*"), proc+"/cwd", proc+"/root", proc+"/exe") {
		var st unix.Stat_t
		switch err := unix.Stat(fd, &st); {
		case err != nil:
		case st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev:
			return "open"
		case st.Dev == dev:
			return "in use through a mount"
		}
	}
	return ""
}

func dmName(holder string) string {
	if name := firstLine(holder + "/dm/name"); name != "" {
		return dmctl.Dir + name
	}
	return filepath.Base(holder)
}

func glob(pattern string) []string {
	list, err := filepath.Glob(pattern)
	if err != nil { // only a malformed pattern
		return nil
	}
	return list
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
