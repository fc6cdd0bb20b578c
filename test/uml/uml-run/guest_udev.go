package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CIM_UML_UDEV names a directory with unpacked Debian packages: udev, dmsetup, lvm2 and
// what they need. In the guest they are a small system of their own, which udevd and its
// tools are confined to by chroot: they run with their own libraries, and the host's
// rules and settings have no part in it.

const (
	udevRoot  = "/run/guest-udev"  // the root of udevd and its tools
	udevTools = "/run/guest-tools" // first in the program's PATH: udevadm and lvm, which enter udevRoot
)

// udevDaemon is the guest's udevd.
type udevDaemon struct {
	hostEnv []string
	pid     int
	mounts  []string // in the order in which they were made
}

// checkUdev checks that the packages are there.
func checkUdev(dir string) error {
	if dir == "" {
		return nil
	}
	for _, name := range []string{"bin/udevadm", "sbin/dmsetup", "sbin/lvm"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("CIM_UML_UDEV does not name a directory with udev, dmsetup and lvm2 unpacked "+
				"(make test-udev makes one): %w", err)
		}
	}
	return nil
}

// startUdev makes the small system, starts udevd in it, and lets it see to the devices
// that were there before it.
func startUdev(packages string, hostEnv []string) (_ *udevDaemon, err error) {
	u := &udevDaemon{hostEnv: hostEnv}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.end())
		}
	}()
	if err := u.mountRoot(packages); err != nil {
		return nil, err
	}
	if err := writeTools("/bin/udevadm", "/sbin/lvm"); err != nil {
		return nil, err
	}
	if u.pid, err = u.fork(); err != nil {
		return nil, err
	}
	if err := u.await(); err != nil {
		return nil, err
	}
	return u, errors.Join(u.udevadm("trigger", "--action=add"), u.udevadm("settle", "--timeout=30"))
}

// mountRoot puts the small system together: the packages' directories, which are
// read-only, and the guest's own /dev, /proc, /sys and /run.
func (u *udevDaemon) mountRoot(packages string) error {
	if err := u.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0); err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll("/run/udev", 0o755), os.MkdirAll(udevRoot, 0o755)); err != nil {
		return err
	}
	if err := u.mount("guest-udev", udevRoot, "tmpfs", 0); err != nil {
		return err
	}
	from := map[string]string{"/dev": "/dev", "/proc": "/proc", "/sys": "/sys", "/run": "/run"}
	for _, name := range []string{"/bin", "/etc/lvm", "/etc/udev", "/lib", "/lib64", "/sbin", "/usr"} {
		from[name] = filepath.Join(packages, name)
	}
	for name, source := range from {
		target := filepath.Join(udevRoot, name)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := u.mount(source, target, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	return errors.Join(writeGroups(), os.MkdirAll(filepath.Join(udevRoot, "tmp"), 0o1777))
}

// writeGroups gives udevd the groups that its rules name; installed packages would have.
func writeGroups() error {
	var text []byte
	for i, name := range strings.Fields("root tty dialout kmem input video render sgx audio lp disk cdrom tape kvm") {
		text = fmt.Appendf(text, "%s:x:%d:\n", name, i)
	}
	return os.WriteFile(filepath.Join(udevRoot, "etc/group"), text, 0o644)
}

func (u *udevDaemon) mount(source, target, fstype string, flags uintptr) error {
	if err := unix.Mount(source, target, fstype, flags, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	u.mounts = append(u.mounts, target)
	return nil
}

// writeTools makes commands that enter the small system. udevadm does nothing in a chroot
// unless it is told that this is meant.
func writeTools(paths ...string) error {
	if err := os.Mkdir(udevTools, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, path := range paths {
		script := "#!/bin/sh\nSYSTEMD_IGNORE_CHROOT=1 exec chroot " + udevRoot + " " + path + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(udevTools, filepath.Base(path)), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// fork starts udevd, with the guest's standard error for its complaints. It is no
// exec.Cmd: runProgram waits for any process that ends, and may be the one to reap it.
func (u *udevDaemon) fork() (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec("/lib/systemd/systemd-udevd", []string{"systemd-udevd"}, &syscall.ProcAttr{
		Dir: "/", Env: u.env(), Files: []uintptr{null.Fd(), os.Stderr.Fd(), os.Stderr.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Chroot: udevRoot},
	})
	if err != nil {
		return 0, fmt.Errorf("start udevd: %w", err)
	}
	return pid, nil
}

// env is the environment of udevd and of what init runs of it; SYSTEMD_LOG_LEVEL=debug
// shows every rule.
func (u *udevDaemon) env() []string {
	const level = "SYSTEMD_LOG_LEVEL="
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_IGNORE_CHROOT=1", "SYSTEMD_LOG_TARGET=console",
		level + "warning",
	}
	for _, e := range u.hostEnv {
		if strings.HasPrefix(e, level) {
			env[len(env)-1] = e
		}
	}
	return env
}

// await waits until udevd answers.
func (u *udevDaemon) await() (err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		if err = u.udevadm("control", "--ping", "--timeout=5"); err == nil {
			return nil
		}
		<-tick.C
	}
	return fmt.Errorf("udevd does not answer: %w", err)
}

func (u *udevDaemon) udevadm(args ...string) error {
	cmd := exec.Command("/bin/udevadm", args...) //nolint:noctx // its own --timeout ends it
	cmd.Env, cmd.SysProcAttr = u.env(), &syscall.SysProcAttr{Chroot: udevRoot}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("udevadm %v: %w: %s", args, err, out)
	}
	return nil
}

// end lets udevd finish what it was told of, ends it, and removes the small system, so
// that the survey sees what the program left behind and nothing else.
func (u *udevDaemon) end() error {
	if u == nil {
		return nil
	}
	var errs []error
	if u.pid != 0 {
		errs = append(errs, u.udevadm("control", "--start-exec-queue"), u.udevadm("settle", "--timeout=30"),
			endProcess(u.pid))
	}
	for _, target := range slices.Backward(u.mounts) {
		if err := unix.Unmount(target, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// endProcess ends a child and waits for it. One that is gone has ended by itself.
func endProcess(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("udevd has ended before its time: %w", err)
	}
	for {
		var st syscall.WaitStatus
		_, err := syscall.Wait4(pid, &st, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
