// Package tool finds and runs the programs of a Linux system, such as mke2fs and
// thin_check. A program cannot outlive this process, so no orphan writes to a device
// while somebody deletes it.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// ErrMissing is returned when a program is not installed.
var ErrMissing = errors.New("missing program")

// maxOutput bounds how much of a failed program's output an error quotes, in bytes.
const maxOutput = 2000

// Program is a program, and the Debian package to install for it.
type Program struct{ Name, Package string }

// Find returns the program's path. It searches PATH, then the directories of system
// programs: a user's PATH lacks those. ErrMissing names the package to install.
func (p Program) Find() (string, error) {
	path, err := exec.LookPath(p.Name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			return path, nil
		}
		path = filepath.Join(dir, p.Name)
		_, err = os.Stat(path)
	}
	if err == nil {
		return path, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: %s: install %s: %w", ErrMissing, p.Name, p.Package, err)
	}
	return "", err
}

// Run runs the program at path to its end and returns both outputs together, trimmed. The
// program and its children are killed when ctx ends; the error is then ctx's cause. The
// kernel kills the program when this process dies. Any other failure quotes the output.
func Run(ctx context.Context, path string, args ...string) (string, error) {
	return RunWith(ctx, func(*exec.Cmd) {}, path, args...)
}

// RunWith is Run for a program that needs more than its arguments: setUp may change the
// environment and hand down files. LC_ALL is always C.
func RunWith(ctx context.Context, setUp func(*exec.Cmd), path string, args ...string) (string, error) {
	// The kernel sends the death signal when the starting thread ends, not the process.
	// So this thread stays until the program ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = os.Environ()
	setUp(cmd)
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Start()
	if err == nil {
		failpoint.Here("in", filepath.Base(path)) // it runs
		err = cmd.Wait()
	}
	text := strings.TrimSpace(out.String())
	if err == nil {
		return text, nil
	}
	if ctx.Err() != nil {
		return text, fmt.Errorf("%s: %w", filepath.Base(path), context.Cause(ctx))
	}
	return text, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, text[max(0, len(text)-maxOutput):])
}
