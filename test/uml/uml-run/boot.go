package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is a guest: its kernel, and the directory with its disk and what it shares with
// us.
type machine struct {
	kernel  kernel
	dir     string
	args    []string // the program's
	signals <-chan os.Signal

	terminal *os.File // what the program reads; nil if it has no terminal
}

// bootAgain boots on the same disk for as long as the program brings its kernel down.
func (m *machine) bootAgain() (int, error) {
	stopped := 0
	for booted := 1; ; booted++ {
		code, err := m.boot()
		meant := os.Remove(filepath.Join(m.dir, downName)) == nil
		switch {
		case err == nil || !reboots():
			return code, err
		case errors.Is(err, errStopped) && stopped < 10:
			stopped++
			fmt.Fprintf(os.Stderr, "uml-run: %v; booted again on the same disk\n", err)
		case !meant:
			return code, err
		}
		if err := m.writeSpec(booted); err != nil {
			return 0, err
		}
	}
}

// errStopped is returned when nothing at all went on in the guest.
var errStopped = errors.New("the guest's kernel stopped")

// prepare writes what the guest reads, and makes its disk.
func (m *machine) prepare() error {
	if err := errors.Join(m.writeSpec(0), os.Mkdir(filepath.Join(m.dir, bootName), 0o700)); err != nil {
		return err
	}
	return m.makeDisk()
}

// makeDisk makes the sparse file of the guest's disk.
func (m *machine) makeDisk() error {
	f, err := os.OpenFile(m.disk(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(scratchGB<<30), f.Close())
}

// memory is the guest's, as the kernel's command line has it.
func memory() string {
	if s := os.Getenv("CIM_UML_MEMORY"); s != "" {
		return s
	}
	return "2G"
}

// disk is the file of the guest's disk.
func (m *machine) disk() string { return filepath.Join(m.dir, "disk") }

func (m *machine) writeSpec(booted int) error {
	path, err := exec.LookPath(m.args[0])
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	udev := os.Getenv("CIM_UML_UDEV")
	if udev != "" {
		if udev, err = filepath.Abs(udev); err != nil {
			return err
		}
	}
	if err := checkUdev(udev); err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec{
		Args: append([]string{path}, m.args[1:]...), Env: append(m.kernel.programEnvironment(), os.Environ()...),
		Dir: cwd, Modules: m.kernel.modules, Boot: booted,
		Writable: os.Getenv("CIM_UML_WRITABLE"), Udev: udev, Terminal: m.terminal != nil,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.dir, specName), text, 0o600)
}

// boot boots the kernel and waits until it powers off. One that dies before its init runs
// may be forbidden to use seccomp by the host: it is booted in its slower mode then.
func (m *machine) boot() (int, error) {
	code, err := m.bootOnce()
	if err == nil || !m.kernel.seccomp || m.isBorn() {
		return code, err
	}
	fmt.Fprintf(os.Stderr, "uml-run: %s does not start with seccomp=on: %v; it runs by ptrace, which is slower\n",
		m.kernel, err)
	m.kernel.seccomp = false
	return m.bootOnce()
}

// isBorn reports whether the guest's init has ever run.
func (m *machine) isBorn() bool {
	_, err := os.Stat(filepath.Join(m.dir, aliveName))
	return err == nil
}

func (m *machine) bootOnce() (int, error) {
	orders, ours, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer orders.Close()
	defer ours.Close()
	cmd, err := m.command()
	if err != nil {
		return 0, err
	}
	cmd.ExtraFiles = []*os.File{orders, os.Stderr}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1) // buffered: one result
	go func() { ended <- cmd.Wait() }()
	err = forward(m.signals, ours, ended, filepath.Join(m.dir, aliveName))
	endGroup(cmd.Process.Pid)
	if errors.Is(err, errStopped) {
		<-ended //nolint:errcheck // it was killed
		return 0, err
	}
	return exitCode(m.dir, err)
}

// command is the kernel's. Of its consoles the first is its own, the second, raw, the
// program's standard output, the third brings our signals, the fourth is standard error.
func (m *machine) command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program := "null,fd:1"
	if m.terminal != nil {
		program = "fd:0,fd:1"
	}
	args := []string{
		"mem=" + memory(), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=" + self,
		specVar + "=" + m.dir,
		"ubd0=" + m.disk(),
		"con=null", "con1=" + program, "con2=fd:3,null", "con3=null,fd:2", "uml_dir=" + m.dir, "panic=-1",
	}
	if os.Getenv("CIM_UML_CONSOLE") != "" {
		args = append(args, "con0=null,fd:4")
	} else {
		args = append(args, "quiet")
	}
	//nolint:noctx // ends by its own power-off, or killed as a group
	cmd := exec.Command(m.kernel.path, append(args, m.kernel.arguments()...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if m.terminal != nil {
		cmd.Stdin = m.terminal
	}
	cmd.Env = append(append(os.Environ(), "TMPDIR="+memoryDir(m.dir, memory())), m.kernel.environment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// endGroup kills a kernel that does not end, and what is left of one that died. It waits
// for them, at most some seconds: while they are there they hold the lock of the disk.
func endGroup(pid int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		if errors.Is(syscall.Kill(-pid, syscall.SIGKILL), syscall.ESRCH) {
			return
		}
		<-tick.C
	}
}

// forward sends signals to the guest until it has ended, or is to be killed: when it does
// not obey a third signal within ten seconds, or its kernel has stopped.
func forward(signals <-chan os.Signal, to *os.File, ended <-chan error, alive string) error {
	var patience <-chan time.Time
	n, began := 0, time.Now()
	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-look.C:
			if silence := silentSince(alive, began); silence > time.Minute {
				return fmt.Errorf("%w: nothing heard of it for %s", errStopped, silence.Round(time.Second))
			}
		case <-patience:
			return errors.New("the guest did not obey; killed")
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok {
				fmt.Fprintf(to, "%d\n", int(sig))
			}
			if n++; n == 3 {
				patience = time.After(10 * time.Second)
			}
		}
	}
}

// silentSince returns how long the guest has not touched its file, counted from its start
// if it never did.
func silentSince(alive string, began time.Time) time.Duration {
	if info, err := os.Stat(alive); err == nil && info.ModTime().After(began) {
		began = info.ModTime()
	}
	return time.Since(began)
}

// exitCode reads what the guest's init wrote last.
func exitCode(dir string, ended error) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, codeName))
	if err != nil {
		return 0, fmt.Errorf("the guest ended without running the program to its end (CIM_UML_CONSOLE=1 shows why): %w",
			errors.Join(ended, err))
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// memoryDir is where the guest's memory lies: shared memory if there is enough that may
// be executed, else beside the disk.
func memoryDir(dir, memory string) string {
	const shm = "/dev/shm"
	var need uint64
	var unit string
	if n, _ := fmt.Sscanf(strings.ToUpper(memory), "%d%s", &need, &unit); n == 0 {
		return dir
	}
	switch unit {
	case "G":
		need <<= 30
	case "M":
		need <<= 20
	case "K":
		need <<= 10
	}
	const noexec = 0x8 // ST_NOEXEC in statfs(2)
	var st syscall.Statfs_t
	if syscall.Statfs(shm, &st) != nil || st.Flags&noexec != 0 || st.Bavail*uint64(st.Bsize) < need {
		return dir
	}
	return shm
}
