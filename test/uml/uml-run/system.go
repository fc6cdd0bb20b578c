package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// systemCode is where a system leaves its exit code, in its root directory.
const systemCode = "exit-code"

// runSystem boots the tree of a whole system, with its own init, and returns the exit
// code that it left in the file exit-code. The tree is its root file system, and is
// changed by it. Its disk, /dev/ubda, is empty and sparse.
func runSystem(tree string) (int, error) {
	tree, err := filepath.Abs(tree)
	if err != nil {
		return 0, err
	}
	k, err := chooseKernel(os.Stderr)
	if err != nil {
		return 0, err
	}
	if err := installModules(k, tree); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "uml-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	m := &machine{kernel: k, dir: dir}
	if err := m.makeDisk(); err != nil {
		return 0, err
	}
	code := filepath.Join(tree, systemCode)
	if err := os.Remove(code); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := m.systemCommand(tree).Run(); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(code)
	if err != nil {
		return 0, fmt.Errorf("the system powered off and left no exit code: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// installModules gives the tree the kernel's modules, where modprobe looks for them.
func installModules(k kernel, tree string) error {
	to := filepath.Join(tree, "usr/lib/modules", k.version)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	return os.CopyFS(to, os.DirFS(k.modules))
}

// systemCommand is the kernel's. The system has one console: our standard output.
func (m *machine) systemCommand(tree string) *exec.Cmd {
	args := []string{
		"mem=" + memory(), "root=/dev/root", "rootfstype=hostfs", "rootflags=" + tree, "rw",
		"init=/lib/systemd/systemd", "ubd0=" + m.disk(), "con=null", "con0=null,fd:1", "uml_dir=" + m.dir, "panic=-1",
	}
	if os.Getenv("CIM_UML_CONSOLE") == "" {
		args = append(args, "quiet", "systemd.show_status=no")
	}
	//nolint:noctx // ends by its own power-off
	cmd := exec.Command(m.kernel.path, append(args, m.kernel.arguments()...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(append(os.Environ(), "TMPDIR="+memoryDir(m.dir, memory())), m.kernel.environment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
