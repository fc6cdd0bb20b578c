package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shared is where the guest mounts, writable, the directory that it shares with the host.
const shared = "/run/host"

// modules are loaded with what they depend on.
var modules = []string{"loop", "dm-thin-pool", "dm-flakey", "dm-log-writes"}

// guestMain is the guest's init: it makes a machine, runs the program, reports what that
// left behind, and powers off.
func guestMain(dir string) {
	code, err := start(dir)
	if err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: guest: %v\n", err)
		code = exitGuest
	}
	if err := os.WriteFile(filepath.Join(shared, codeName), []byte(strconv.Itoa(code)), 0o600); err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: guest: %v\n", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // it does not return
}

// start gives the guest its standard error, which is not the kernel's console: nothing
// before this is seen without CIM_UML_CONSOLE.
func start(dir string) (int, error) {
	if err := mountAll(dir); err != nil {
		return 0, err
	}
	beAlive()
	tty, err := rawConsole("/dev/tty3")
	if err != nil {
		return 0, err
	}
	os.Stderr = tty
	return guest()
}

func guest() (int, error) {
	s, err := readSpec()
	if err != nil {
		return 0, err
	}
	if s.Writable != "" {
		if err := unix.Mount("host", s.Writable, "hostfs", 0, s.Writable); err != nil {
			return 0, fmt.Errorf("mount %s: %w", s.Writable, err)
		}
	}
	if err := loadModules(s.Modules); err != nil {
		return 0, err
	}
	if err := loopbackUp(); err != nil {
		return 0, fmt.Errorf("network interface lo: %w", err)
	}
	scratch, err := mountScratch(s.Boot)
	if err != nil {
		return 0, err
	}
	before, err := survey()
	if err != nil {
		return 0, err
	}
	var udev *udevDaemon
	if s.Udev != "" {
		if udev, err = startUdev(s.Udev, s.Env); err != nil {
			return 0, err
		}
	}
	code, err := runProgram(s, scratch)
	if err := errors.Join(err, udev.end()); err != nil {
		return 0, err
	}
	after, err := survey()
	if err != nil {
		return 0, err
	}
	leaked := false
	for _, what := range after {
		if !slices.Contains(before, what) {
			fmt.Fprintf(os.Stderr, "uml-run: left behind: %s\n", what)
			leaked = true
		}
	}
	if leaked && code == 0 {
		code = exitLeak
	}
	return code, nil
}

func mountAll(dir string) error {
	for _, m := range []struct{ source, target, fstype, data string }{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"dev", "/dev", "devtmpfs", ""},
		{"run", "/run", "tmpfs", "mode=755"},
		{"host", shared, "hostfs", dir},
	} {
		if m.target == shared {
			if err := os.Mkdir(shared, 0o700); err != nil {
				return err
			}
		}
		// the kernel mounts /dev itself
		if err := unix.Mount(m.source, m.target, m.fstype, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// loadModules loads modules of the running kernel in the order that modules.dep gives.
func loadModules(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	needs := map[string][]string{} // by module: itself and what it needs, in the reverse order of loading
	for line := range strings.Lines(string(text)) {
		path, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[strings.TrimSuffix(filepath.Base(path), ".ko")] = append([]string{path}, strings.Fields(deps)...)
	}
	for _, name := range modules {
		files := slices.Clone(needs[name])
		if len(files) == 0 {
			return fmt.Errorf("this user-mode-linux has no module %s", name)
		}
		slices.Reverse(files)
		for _, file := range files {
			if err := loadModule(filepath.Join(dir, file)); err != nil {
				return fmt.Errorf("module %s: %w", file, err)
			}
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func readSpec() (s spec, err error) {
	text, err := os.ReadFile(filepath.Join(shared, specName)) // its path on the host may be hidden here: /dev/shm is
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// mountScratch mounts the disk where it hides none of the host's files; at the first boot
// it makes the file system. After a kernel that was brought down the mount replays its
// journal.
func mountScratch(booted int) (string, error) {
	//nolint:noctx // quick
	mkfs := exec.Command("/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "nodiscard,assume_storage_prezeroed=1", "/dev/ubda")
	if booted == 0 {
		if text, err := mkfs.CombinedOutput(); err != nil {
			return "", fmt.Errorf("mkfs.ext4 /dev/ubda: %w: %s", err, text)
		}
	}
	for _, dir := range []string{"/mnt", "/media", "/srv", "/opt"} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 0 {
			continue
		}
		if err := unix.Mount("/dev/ubda", dir, "ext4", unix.MS_NOATIME, ""); err != nil {
			return "", fmt.Errorf("mount /dev/ubda on %s: %w", dir, err)
		}
		return dir, os.Chmod(dir, 0o1777)
	}
	return "", errors.New("no empty directory to mount the scratch file system on: " +
		"/mnt, /media, /srv and /opt are all in use")
}

// runProgram runs the program and reaps whatever becomes an orphan until it ends.
func runProgram(s spec, scratch string) (int, error) {
	in, out, errs, err := openConsoles(s.Terminal)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	defer out.Close()
	env := guestEnv(s, scratch)
	pid, err := syscall.ForkExec(s.Args[0], s.Args, &syscall.ProcAttr{
		Dir: s.Dir, Env: env, Files: []uintptr{in.Fd(), out.Fd(), errs.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: s.Terminal}, // the terminal is file 0
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.Args[0], err)
	}
	go obey(pid)
	go stayAlive()
	return reap(pid)
}

// guestEnv is the program's environment: the host's, but for what is the guest's.
// libdevmapper's programs would wait for udevd; without one they are told not to.
func guestEnv(s spec, scratch string) []string {
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	ours := []string{
		"TMPDIR=" + scratch, "HOME=" + scratch,
		"CIM_BOOT=" + strconv.Itoa(s.Boot), "CIM_BOOT_DIR=" + filepath.Join(shared, bootName),
	}
	if s.Udev == "" {
		ours = append(ours, "PATH="+path, "DM_DISABLE_UDEV=1")
	} else {
		ours = append(ours, "PATH="+udevTools+":"+path)
	}
	return append(slices.DeleteFunc(slices.Clone(s.Env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == "DM_DISABLE_UDEV" ||
			slices.ContainsFunc(ours, func(o string) bool { return strings.HasPrefix(o, name+"=") })
	}), ours...)
}

// rawConsole opens a console that passes bytes on as they are.
func rawConsole(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// obey passes on the signals that the host sends. When the host's end is gone, so is
// whoever wanted the run: power off.
func obey(pid int) {
	f, err := os.OpenFile("/dev/tty2", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: guest: no signals: %v\n", err)
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if n, err := strconv.Atoi(strings.TrimSpace(lines.Text())); err == nil {
			_ = syscall.Kill(pid, syscall.Signal(n)) // it may have ended
		}
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// stayAlive shows the host that the kernel runs: timers fire, processes are scheduled,
// files are written.
func stayAlive() {
	for range time.Tick(time.Second) {
		beAlive()
	}
}

func beAlive() {
	if err := os.WriteFile(filepath.Join(shared, aliveName), []byte("yes"), 0o600); err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: guest: %v\n", err)
	}
}

func reap(pid int) (int, error) {
	for {
		var st syscall.WaitStatus
		got, err := syscall.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case got == pid && st.Exited():
			return st.ExitStatus(), nil
		case got == pid && st.Signaled():
			fmt.Fprintf(os.Stderr, "uml-run: program ended by signal: %s\n", st.Signal())
			return 128 + int(st.Signal()), nil
		}
	}
}

// survey lists what a program could leave behind.
func survey() ([]string, error) {
	var found []string
	for pattern, kind := range map[string]string{
		"/sys/block/dm-*/dm/name":            "device-mapper device",
		"/sys/block/loop*/loop/backing_file": "loop device",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found = append(found, fmt.Sprintf("%s %s (%s)", kind, strings.TrimSpace(string(text)), f))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		found = append(found, "mount "+strings.TrimSpace(line))
	}
	processes, err := userProcesses()
	return append(found, processes...), err
}

// userProcesses lists the processes that are no kernel threads.
func userProcesses() ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && len(text) > 0 {
			found = append(found, "process "+filepath.Base(filepath.Dir(f))+": "+
				strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " ")))
		}
	}
	return found, nil
}
