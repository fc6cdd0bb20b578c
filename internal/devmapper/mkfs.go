package devmapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

const filesystem = "ext4"

// MakeFilesystem makes an empty ext4 with the given UUID on a thin device that was never
// written to. It writes no zeros, because a new thin device reads as zeros: 0.7 MiB of
// the pool for 2 GiB, where mkfs.ext4 by itself takes 65. mke2fs is a child process that
// dies with this one, and when ctx ends; its error text is in the error. ErrUnavailable
// says that there is no mke2fs.
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
	size, err := sizeOf(node)
	if err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	config, err := memoryFile("mke2fs.conf", mkfsConfig)
	if err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	defer config.Close()
	args := append(mkfsOptions(version, uuid, size), node)
	if _, err := runConfigured(ctx, config, tool, args...); err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	return nil
}

// prezeroedSince is the first e2fsprogs that can be told that the device reads as zeros.
var prezeroedSince = [3]int{1, 47, 0}

// features is every feature of our file systems: those that any kernel and e2fsprogs of
// the last ten years know. `none` first: nothing is inherited.
const features = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file," +
	"dir_nlink,extra_isize,metadata_csum"

// mkfsConfig stands in for the host's mke2fs.conf. It says what no option can.
const mkfsConfig = `[defaults]
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	hash_alg = half_md4
	auto_64-bit_support = 0
	undo_dir = none
[fs_types]
	ext4 = {
		inode_size = 256
	}
`

// mkfsOptions are mke2fs's. Whatever it would take from its configuration, from the
// device's geometry or from the kernel is named, so that a device of a size gets the same
// file system on every host, with every mke2fs. hash_seed is set so that equal trees make
// equal images.
//
// The older program leaves the inode tables to be zeroed by the kernel at the first
// mount, which MountBuild keeps it from doing. Without resize_inode there is nothing to
// grow into: devices never grow. mke2fs would choose smaller blocks on a small device, in
// which a symlink of more than 1 KiB does not fit.
func mkfsOptions(version [3]int, uuid string, size int64) []string {
	extended := "nodiscard,assume_storage_prezeroed=1"
	if !atLeast(version, prezeroedSince) {
		extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
	}
	extended += ",stride=16,stripe_width=16,root_owner=0:0,hash_seed=" + uuid
	return []string{
		"-t", filesystem, "-q", "-F", "-m", "0", "-b", "4096", "-i", "16384", "-I", "256", "-g", "32768", "-G", "16",
		"-e", "continue", "-r", "1", "-o", "Linux", "-L", "", "-J", journalSize(size), "-U", uuid, "-E", extended, "-O",
		features,
	}
}

// journalSize is mke2fs's own choice since e2fsprogs 1.45 for so many bytes, but for a
// file system of less than 128 MiB, which has the least that there can be.
func journalSize(bytes int64) string {
	const mib, gib = 1 << 20, 1 << 30
	size := 1024 // MiB
	for _, t := range []struct {
		below int64
		mib   int
	}{{128 * mib, 4}, {gib, 16}, {2 * gib, 32}, {16 * gib, 64}, {32 * gib, 128}, {64 * gib, 256}, {128 * gib, 512}} {
		if bytes < t.below {
			size = t.mib
			break
		}
	}
	return "size=" + strconv.Itoa(size)
}

// sizeOf is the size of a block device or file.
func sizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// memoryFile is a file without a name that a child process reads by its descriptor.
func memoryFile(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteString(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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

// parseVersion reads `mke2fs 1.47.0 (5-Feb-2023)`; there are versions without a third
// number, and with letters behind.
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

// runTool runs a program to its end and returns what it prints, both outputs together. It
// is killed, with its children, when ctx ends; the kernel kills it when this process
// dies, so that no orphan writes to a device that is being deleted.
func runTool(ctx context.Context, path string, args ...string) (string, error) {
	return runConfigured(ctx, nil, path, args...)
}

// inherited reports whether a tool gets a variable of ours: not those by which e2fsprogs
// and its libraries are told to work otherwise.
func inherited(variable string) bool {
	for _, prefix := range []string{"MKE2FS_", "E2FSPROGS_", "E2FSCK_", "SOURCE_DATE_EPOCH=", "BLKID_", "TEST_IO_"} {
		if strings.HasPrefix(variable, prefix) {
			return false
		}
	}
	return true
}

// runConfigured is runTool for mke2fs with a configuration.
func runConfigured(ctx context.Context, config *os.File, path string, args ...string) (string, error) {
	// The death signal comes when the thread that started the child ends, not the
	// process: this one must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return !inherited(v) }), "LC_ALL=C")
	if config != nil {
		cmd.ExtraFiles = []*os.File{config}
		cmd.Env = append(cmd.Env, "MKE2FS_CONFIG=/proc/self/fd/3")
	}
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
