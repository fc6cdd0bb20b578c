package devmapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

const filesystem = "ext4"

// MakeFilesystem makes an empty ext4 with the given UUID on a thin device that was never written to. It writes no zeros, because a new
// thin device reads as zeros: 0.7 MiB of the pool for 2 GiB, where mkfs.ext4 by itself takes 65. mke2fs is a child process that dies
// with this one, and when ctx ends; its error text is in the error. ErrUnavailable says that there is no mke2fs.
func MakeFilesystem(ctx context.Context, path, uuid string) error {
	tool, err := findTool(mke2fs)
	if err != nil {
		return err
	}
	version, err := mke2fsVersion(ctx, tool)
	if err != nil {
		return err
	}
	node, err := resolve(path)
	if err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	args := append(mkfsOptions(version, uuid), node)
	if _, err := runTool(ctx, tool, args...); err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	return nil
}

// prezeroedSince is the first e2fsprogs that can be told that the device reads as zeros.
var prezeroedSince = [3]int{1, 47, 0}

// mkfsOptions are mke2fs's. The older program leaves the inode tables to be zeroed by the kernel at the first mount, which
// MountBuild keeps it from doing. Without resize_inode there is nothing to grow into: devices never grow. hash_seed is set so
// that equal trees make equal images. Block size and inode ratio are fixed: mke2fs would choose smaller blocks on a small device, in
// which a symlink of more than 1 KiB does not fit.
func mkfsOptions(version [3]int, uuid string) []string {
	extended := "nodiscard,assume_storage_prezeroed=1,hash_seed=" + uuid
	if !atLeast(version, prezeroedSince) {
		extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,hash_seed=" + uuid
	}
	return []string{"-t", filesystem, "-q", "-F", "-m", "0", "-b", "4096", "-i", "16384", "-U", uuid, "-E", extended, "-O", "^resize_inode"}
}

func atLeast(v, least [3]int) bool {
	for i := range v {
		if v[i] != least[i] {
			return v[i] > least[i]
		}
	}
	return true
}

func mke2fsVersion(ctx context.Context, path string) ([3]int, error) {
	out, err := runTool(ctx, path, "-V")
	if err != nil {
		return [3]int{}, err
	}
	v, ok := parseVersion(out)
	if !ok {
		return v, fmt.Errorf("%s -V: %w version %q", path, errMalformed, out)
	}
	return v, nil
}

var versionPattern = regexp.MustCompile(`^mke2fs (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

// parseVersion reads `mke2fs 1.47.0 (5-Feb-2023)`; there are versions without a third number, and with letters behind.
func parseVersion(out string) (v [3]int, ok bool) {
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return v, false
	}
	for i := range v {
		if m[i+1] != "" {
			v[i], _ = strconv.Atoi(m[i+1]) // at most four digits
		}
	}
	return v, true
}

// tool is a program that this package runs, and the package that has it.
type tool struct{ name, pkg string }

var (
	mke2fs     = tool{"mke2fs", "e2fsprogs"}
	thinCheck  = tool{"thin_check", "thin-provisioning-tools"}
	thinRepair = tool{"thin_repair", "thin-provisioning-tools"}
)

// findTool finds a program on the PATH, and where it is when the PATH is a user's.
func findTool(t tool) (string, error) {
	path, err := exec.LookPath(t.name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			return path, nil
		}
		path = filepath.Join(dir, t.name)
		_, err = os.Stat(path)
	}
	if err == nil {
		return path, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: there is no %s: install %s: %w", ErrUnavailable, t.name, t.pkg, err)
	}
	return "", err
}

// runTool runs a program to its end and returns what it prints, both outputs together. It is killed, with its children, when ctx
// ends; the kernel kills it when this process dies, so that no orphan writes to a device that is being deleted.
func runTool(ctx context.Context, path string, args ...string) (string, error) {
	// The death signal comes when the thread that started the child ends, not the process: this one must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
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
	const most = 2000
	return text, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, text[max(0, len(text)-most):])
}
