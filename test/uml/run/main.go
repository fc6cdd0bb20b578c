// Command uml-run runs a program where there is a device-mapper thin pool: as it is on a machine that has dm-thin and a root user,
// else in a user-mode-linux booted for it (Debian package user-mode-linux), which needs neither root nor KVM nor any module of the
// host's. The guest sees the host's files read-only, is root over kernel objects of its own, and has a scratch file system.
//
//	uml-run -- program args…            the program's output and exit code are those of uml-run
//	go test -exec uml-run ./package     go test appends the test binary and its flags
//
// SIGINT and SIGTERM reach the program. Whatever of device-mapper devices, loop devices, mounts or processes it leaves in the guest is
// printed and makes the run fail with exit code 70; exit code 71 means that the guest did not run the program to its end.
//
// A guest whose kernel has stopped altogether, as user-mode-linux 6.1 does once in a while on a busy machine, is killed after a minute,
// and the program is run again in a new one, once. A program that hangs is left to its own time-outs.
//
// With CIM_UML_REBOOTS=1 the program may bring its kernel down, as a power cut would, and is run again in a new one: on the same disks,
// of which the first is mounted again as it was left, with CIM_BOOT=1, 2, … in its environment (0 at first). So that nobody mistakes it
// for an accident, it makes a file named "down" in the directory CIM_BOOT_DIR before, and what else it writes there lasts from one boot
// to the next: the directory is the host's. A guest is booted then even where the machine has dm-thin. A kernel that has stopped is one
// more power cut to such a program, up to ten times.
//
// In the guest TMPDIR and HOME lie on an ext4, and CIM_SCRATCH_DISKS names empty block devices, separated by commas.
// CIM_UML_MEMORY sets the guest's memory (default 2G), CIM_UML_CONSOLE=1 shows the kernel's messages.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"imagemanager.internal/internal/devmapper"
)

const (
	exitLeak  = 70
	exitGuest = 71

	kernel    = "linux.uml"
	specName  = "spec.json"
	codeName  = "exit-code"
	aliveName = "alive"       // touched every second by a guest that is well
	bootName  = "boot"        // directory that lasts from one boot to the next
	downName  = "boot/down"   // made by a program that brings its kernel down
	specVar   = "CIM_UML_DIR" // names, to the guest's init, the directory that it shares with the host
	scratchGB = 32            // sparse
)

// spec is what the guest's init is told.
type spec struct {
	Args []string
	Env  []string
	Dir  string // working directory
	Boot int    // how many kernels ran on these disks before
}

// reboots tells whether the program may bring its kernel down.
func reboots() bool { return os.Getenv("CIM_UML_REBOOTS") == "1" }

func main() {
	args := os.Args[1:]
	if os.Getpid() == 1 && os.Getenv(specVar) != "" {
		guestMain(os.Getenv(specVar))
		return
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: uml-run -- program args…")
		os.Exit(2)
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: %v\n", err)
		os.Exit(exitGuest)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if !reboots() && devmapper.Probe() == nil {
		return native(args)
	}
	if _, err := exec.LookPath(kernel); err != nil {
		return 0, errors.New("this kernel has no dm-thin (or you are not root), and user-mode-linux is not installed: apt-get install user-mode-linux")
	}
	signals := make(chan os.Signal, 4) // buffered: package signal does not wait
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	dir, err := os.MkdirTemp("", "uml-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir, args); err != nil {
		return 0, err
	}
	code, err := bootAgain(dir, args, signals)
	if reboots() || !errors.Is(err, errStopped) {
		return code, err
	}
	fmt.Fprintf(os.Stderr, "uml-run: %v; once more in a new guest\n", err)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), prepare(dir, args)); err != nil {
		return 0, err
	}
	return bootAgain(dir, args, signals)
}

// bootAgain boots on the same disks for as long as the program brings its kernel down.
func bootAgain(dir string, args []string, signals <-chan os.Signal) (int, error) {
	stopped := 0
	for booted := 1; ; booted++ {
		code, err := boot(dir, signals)
		meant := os.Remove(filepath.Join(dir, downName)) == nil
		switch {
		case err == nil || !reboots():
			return code, err
		case errors.Is(err, errStopped) && stopped < 10:
			stopped++
			fmt.Fprintf(os.Stderr, "uml-run: %v; booted again on the same disks\n", err)
		case !meant:
			return code, err
		}
		if err := writeSpec(dir, args, booted); err != nil {
			return 0, err
		}
	}
}

// errStopped says that nothing at all went on in the guest.
var errStopped = errors.New("the guest's kernel stopped")

// native becomes the program.
func native(args []string) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	return 0, syscall.Exec(path, args, os.Environ())
}

// prepare writes what the guest reads: the spec, and sparse files for its disks.
func prepare(dir string, args []string) error {
	if err := errors.Join(writeSpec(dir, args, 0), os.Mkdir(filepath.Join(dir, bootName), 0o700)); err != nil {
		return err
	}
	for name, gb := range map[string]int64{"disk0": scratchGB, "disk1": 1, "disk2": 1} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(gb<<30), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func writeSpec(dir string, args []string, booted int) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec{Args: append([]string{path}, args[1:]...), Env: os.Environ(), Dir: cwd, Boot: booted})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, specName), text, 0o600)
}

// boot starts the kernel and waits until it powers off. Of its consoles the first is the kernel's own, the second, raw, the
// program's standard output, the third brings our signals, the fourth is standard error.
func boot(dir string, signals <-chan os.Signal) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	orders, ours, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer orders.Close()
	defer ours.Close()
	memory := "2G"
	if m := os.Getenv("CIM_UML_MEMORY"); m != "" {
		memory = m
	}
	args := []string{
		"mem=" + memory, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=" + self, specVar + "=" + dir,
		"ubd0=" + filepath.Join(dir, "disk0"), "ubd1=" + filepath.Join(dir, "disk1"), "ubd2=" + filepath.Join(dir, "disk2"),
		"con=null", "con1=null,fd:1", "con2=fd:3,null", "con3=null,fd:2", "uml_dir=" + dir, "panic=-1",
	}
	if os.Getenv("CIM_UML_CONSOLE") != "" {
		args = append(args, "con0=null,fd:4")
	} else {
		args = append(args, "quiet")
	}
	cmd := exec.Command(kernel, args...) //nolint:noctx // ends by its own power-off, or killed as a group
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{orders, os.Stderr}
	cmd.Env = append(os.Environ(), "TMPDIR="+memoryDir(dir, memory))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1) // buffered: one result
	go func() { ended <- cmd.Wait() }()
	err = forward(signals, ours, ended, filepath.Join(dir, aliveName))
	endGroup(cmd.Process.Pid)
	if errors.Is(err, errStopped) {
		<-ended //nolint:errcheck // it was killed
		return 0, err
	}
	return exitCode(dir, err)
}

// endGroup kills a kernel that does not end, and what is left of one that died. It waits for them, at most some seconds: while they
// are there they hold the locks of the disks.
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

// forward sends signals to the guest until it has ended, or is to be killed: when it does not obey a third signal within ten seconds,
// or its kernel has stopped.
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

// silentSince tells how long the guest has not touched its file, counted from its start when it never did.
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
		return 0, fmt.Errorf("the guest ended without running the program to its end (CIM_UML_CONSOLE=1 shows why): %w", errors.Join(ended, err))
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// memoryDir is where the guest's memory lies: shared memory if there is enough that may be executed, else beside the disks.
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
