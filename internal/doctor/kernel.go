package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
)

// leastKernel is the first kernel with all that is used: openat2, and detached mounts.
var leastKernel = [2]int{5, 8}

// isRoot reports whether the process has root's user id.
func isRoot() bool { return os.Geteuid() == 0 }

// kernel looks at the kernel's version.
func kernel() Finding {
	const check = "kernel"
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return warn(check, "tell its authors", "the kernel does not tell its version: %v", err)
	}
	release := string(bytes.TrimRight(u.Release[:], "\x00"))
	var have [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); n != 2 {
		return warn(check, "it must be 5.8 or later", "the kernel's version is %q", release)
	}
	if have[0] < leastKernel[0] || have[0] == leastKernel[0] && have[1] < leastKernel[1] {
		return fail(check, "run Linux 5.8 or later", "Linux %s", release)
	}
	return ok(check, "Linux %s", release)
}

// thinTarget asks the kernel, which loads the module for the answer as it does for the
// daemon.
func thinTarget() Finding {
	const check = "device-mapper"
	if !isRoot() {
		return seenByRoot(check, "dm_thin_pool")
	}
	if err := devmapper.ProbeTarget(); err != nil {
		return fail(check,
			"modprobe -a dm_mod dm_thin_pool; in a container, give it /dev/mapper/control and CAP_SYS_ADMIN",
			"the kernel makes no thin pools: %v", cause(err))
	}
	return ok(check, "the kernel has the target thin-pool")
}

// detachedMount looks for ext4 and for mounts without a mount point.
func detachedMount() Finding {
	const check = "ext4"
	if !isRoot() {
		return seenByRoot(check, "ext4")
	}
	err := ext4.ProbeKernel()
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM):
		return fail(check,
			"allow fsopen, fsconfig and fsmount: CAP_SYS_ADMIN, and SystemCallFilter=@mount in the unit, "+
				"or the container's seccomp profile", "fsopen fails: %v", cause(err))
	case err != nil:
		return fail(check, "modprobe ext4", "the kernel has no ext4: %v", cause(err))
	}
	return ok(check, "the kernel has ext4, and mounts without a mount point")
}

// loop looks for loop devices, which a pool on files needs.
func loop() Finding {
	const check = "loop"
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return warn(check, "modprobe loop; a pool on block devices needs none", "there is no /dev/loop-control")
	}
	return ok(check, "there are loop devices")
}

// seenByRoot says of a module what everybody can see.
func seenByRoot(check, module string) Finding {
	seen := "is not loaded"
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		seen = "is there"
	}
	return warn(check, notRoot, "the module %s %s; whether it works is for root to see", module, seen)
}

// openat2 makes the call that every unpacking is made of. Seccomp filters of systemd's
// RestrictSUIDSGID= answer ENOSYS, as they cannot look into its arguments; older ones of
// container engines EPERM.
func openat2() Finding {
	const check = "openat2"
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &how)
	switch {
	case err == nil:
		unix.Close(fd)
		return ok(check, "works")
	case seccomp():
		return fail(check, "take RestrictSUIDSGID= out of the unit (`systemctl cat consumer`); of a container, allow "+
			"openat2 in its seccomp profile",
			"openat2 fails: %v: a seccomp filter refuses it; no image can be unpacked", err)
	}
	return fail(check, "run Linux 5.8 or later", "openat2 fails: %v; no image can be unpacked", err)
}

// cause returns the errno in an error, or the error. What stands around an errno is a
// remedy for those who do not read ours.
func cause(err error) error {
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

// seccomp reports whether a filter looks at the system calls of this process
// (proc_pid_status(5)).
func seccomp() bool { return processStatus("Seccomp") == "2" }

// processStatus returns a field of /proc/self/status, "" without it.
func processStatus(name string) string {
	text, _ := os.ReadFile("/proc/self/status") // without /proc nothing is known
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, name+":"); is {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
