// Command uml-run runs a program where it can make device-mapper thin pools: directly, if
// the machine has dm-thin and the user is root; otherwise in a user-mode-linux booted for
// it (Debian package user-mode-linux), which needs neither root nor KVM nor any module of
// the host's. The guest sees the host's files read-only, is root over kernel objects of
// its own, and has a scratch file system.
//
//	uml-run -- program args…            passes output and exit code of the program on
//	uml-run -t -- program args…         gives the program the terminal: a shell, for one
//	go test -exec uml-run ./package     go test appends the test binary and its flags
//	uml-run --system DIR        boots the tree of a whole system in DIR, with systemd
//	uml-run --help
//
// SIGINT and SIGTERM reach the program. Whatever of device-mapper devices, loop devices,
// mounts or processes it leaves in the guest is printed and makes the run fail with exit
// code 70; exit code 71 means that the guest did not run the program to its end.
//
// A guest whose kernel has stopped altogether, as user-mode-linux 6.1 does once in a
// while on a busy machine, is killed after a minute, and the program is run again in a
// new one, once. A program that hangs is left to its own time-outs.
//
// With CIM_UML_REBOOTS=1 the program may bring its kernel down, as a power cut would, and
// is run again in a new one: on the same disk, which is mounted again as it was left,
// with CIM_BOOT=1, 2, … in its environment (0 at first). So that nobody mistakes it for
// an accident, it first makes a file named "down" in the directory CIM_BOOT_DIR. Other
// files there last from one boot to the next: the directory is the host's.
// A guest is booted then even where the machine has dm-thin. A kernel that has stopped is
// one more power cut to such a program, up to ten times.
//
// In the guest TMPDIR and HOME lie on an ext4.
//
// With CIM_UML_UDEV=DIR a real udevd runs beside the program, with the device-mapper
// rules of Debian, as on every ordinary host; udevadm and lvm are on
// the program's PATH. DIR holds the packages udev, dmsetup and lvm2, unpacked. A guest is
// booted then even where the machine has dm-thin: its own udevd is not to be held up by
// tests.
//
// CIM_UML_KERNEL names the kernel: 6.1, 6.12 or 7.2, those of Debian 12, 13 and forky; or
// the path of one, with its modules in modules/VERSION beside it or in
// /usr/lib/uml/modules. The default is 7.2, which starts a process about five times
// faster than 6.1. One that is not installed is fetched from Debian once and kept in
// CIM_UML_CACHE; where that fails the installed one is used. A kernel that can run
// processes by seccomp does so, unless the host forbids it.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"imagemanager.internal/internal/devmapper"
)

const usage = `usage: uml-run [-t] [--] program args…
       uml-run --system DIR

Runs a program where there is a device-mapper thin pool: as it is on a machine
that has dm-thin and a root user, else as root in a user-mode-linux guest, which
sees the host's files read-only. Output and exit code are the program's; 70: it
left devices, mounts or processes behind; 71: the guest did not run it to its end.
With -t the program has the terminal that uml-run has.

With --system it boots the tree of a whole system in DIR, with systemd, and the
exit code is what the system leaves in DIR/exit-code.

  CIM_UML_KERNEL   6.1, 6.12, 7.2 (the kernels of Debian 12, 13 and forky) or the
                   path of one; default 7.2. One that is not installed is fetched
                   from Debian; where that fails the installed one is used
  CIM_UML_CACHE    where fetched kernels are kept; default .cache/guest-kernels in
                   the checkout
  CIM_UML_MEMORY   the guest's memory; default 2G
  CIM_UML_CONSOLE  1: show the kernel's messages
  CIM_UML_WRITABLE a directory of the host's that the program may write to
  CIM_UML_UDEV     a directory with the Debian packages udev, dmsetup and lvm2
                   unpacked: their udevd runs beside the program
  CIM_UML_REBOOTS  1: the program may bring its kernel down, and is run again on
                   the same disk
`

const (
	exitLeak  = 70
	exitGuest = 71

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
	Args     []string
	Env      []string
	Dir      string // working directory
	Modules  string // directory of the kernel's modules
	Writable string // a directory of the host's that the program may write to; empty: none
	Udev     string // directory with the packages of udev; empty: the guest has no udevd
	Terminal bool   // the program has a terminal
	Boot     int    // how many kernels ran on this disk before
}

// reboots reports whether the program may bring its kernel down.
func reboots() bool { return os.Getenv("CIM_UML_REBOOTS") == "1" }

func main() {
	args := os.Args[1:]
	if os.Getpid() == 1 && os.Getenv(specVar) != "" {
		guestMain(os.Getenv(specVar))
		return
	}
	if len(args) > 0 && (args[0] == "--help" || args[0] == "-h") {
		fmt.Print(usage)
		return
	}
	do := func(args []string) (int, error) { return run(args, nil) }
	switch {
	case len(args) == 2 && args[0] == "--system":
		do = func(args []string) (int, error) { return runSystem(args[1]) }
	case len(args) > 1 && args[0] == "-t":
		do = runInTerminal
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	code, err := do(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "uml-run: %v\n", err)
		os.Exit(exitGuest)
	}
	os.Exit(code)
}

// run runs a program. Its terminal is nil if it has none.
func run(args []string, terminal *os.File) (int, error) {
	if !reboots() && os.Getenv("CIM_UML_UDEV") == "" && devmapper.Probe() == nil {
		return native(args)
	}
	k, err := chooseKernel(os.Stderr)
	if err != nil {
		return 0, fmt.Errorf("this machine has no dm-thin (or you are not root), and no guest can be booted: %w", err)
	}
	signals := make(chan os.Signal, 4) // buffered: package signal does not wait
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	dir, err := os.MkdirTemp("", "uml-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	m := &machine{kernel: k, dir: dir, args: args, signals: signals, terminal: terminal}
	if err := m.prepare(); err != nil {
		return 0, err
	}
	code, err := m.bootAgain()
	if reboots() || !errors.Is(err, errStopped) {
		return code, err
	}
	fmt.Fprintf(os.Stderr, "uml-run: %v; once more in a new guest\n", err)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), m.prepare()); err != nil {
		return 0, err
	}
	return m.bootAgain()
}

// native becomes the program.
func native(args []string) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	return 0, syscall.Exec(path, args, os.Environ())
}
