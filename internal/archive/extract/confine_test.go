package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// status is what the kernel says of a thread (proc_pid_status(5)).
type status struct {
	permitted, effective, inheritable, ambient capabilities
	noNewPrivs                                 string
}

func parseStatus(text []byte) (s status) {
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		for field, to := range map[string]*capabilities{
			"CapPrm": &s.permitted, "CapEff": &s.effective,
			"CapInh": &s.inheritable, "CapAmb": &s.ambient,
		} {
			if name == field {
				set, err := strconv.ParseUint(value, 16, 64)
				if err != nil {
					set = 1 << 63 // equal to nothing
				}
				*to = capabilities(set)
			}
		}
		if name == "NoNewPrivs" {
			s.noNewPrivs = value
		}
	}
	return s
}

// ownStatus is the calling thread's.
func ownStatus(t testing.TB) status {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/status")
	check(t, err)
	return parseStatus(text)
}

// countThreads counts the process's threads that are like want.
func countThreads(t testing.TB, want status) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	check(t, err)
	for _, path := range tasks {
		if text, err := os.ReadFile(path); err == nil && parseStatus(text) == want { // it may have ended
			n++
		}
	}
	return n
}

// eventually waits for what other threads do: nothing tells when the kernel has ended
// one.
func eventually(what func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if what() {
			return true
		}
	}
	return false
}

// hooked calls a function in each read, which is done by the threads that write.
type hooked struct {
	io.ReaderAt
	hook func()
}

func (h *hooked) ReadAt(p []byte, off int64) (int, error) {
	h.hook()
	return h.ReaderAt.ReadAt(p, off)
}

// While a tree is written three threads touch it, the one that makes the names and the
// workers, and each has exactly the capabilities that the policy takes.
func TestWritersCapabilities(t *testing.T) {
	root := newDisk(t, 64<<20).detached(0)
	b := images.Tar(images.Root(withBodies(images.Numbered(20, "usr/%05d"), 10)...)...)
	const basic = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER
	for policy, set := range map[archive.Policy]capabilities{
		archive.Strict:  basic,
		archive.Distro:  basic,
		archive.Trusted: basic | 1<<unix.CAP_FSETID | 1<<unix.CAP_SETFCAP,
	} {
		want := status{permitted: set, effective: set, noNewPrivs: "1"}
		plan, err := judgeBytes(t, b, policy)
		check(t, err)
		var once sync.Once
		src := &hooked{bytes.NewReader(b), func() {
			if s := ownStatus(t); s != want {
				t.Errorf("%s: a thread that reads the archive has %+v", policy, s)
			}
			once.Do(func() {
				if !eventually(func() bool { return countThreads(t, want) == 1+workerCount }) {
					t.Errorf("%s: %d threads have %+v", policy, countThreads(t, want), want)
				}
			})
		}}
		dir := mkdirOn(t, root, string(policy))
		_, err = Write(t.Context(), src, plan, dir, func(int64) {
			if s := ownStatus(t); s != want {
				t.Errorf("%s: a thread that writes has %+v", policy, s)
			}
		})
		check(t, err)
	}
}

// mkdirOn makes and opens a directory on a disk.
func mkdirOn(t testing.TB, root *os.File, name string) *os.File {
	t.Helper()
	check(t, mkdirAt(int(root.Fd()), name))
	fd, err := openDir(int(root.Fd()), name)
	check(t, err)
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// While a tree is read back, the threads that do it have what reading takes, and more for
// no longer than one call.
func TestReadersCapabilities(t *testing.T) {
	needRoot(t)
	root := openTemp(t)
	check(t, mkdirAt(int(root.Fd()), "d"))
	// Otherwise two threads that only ever hash could keep the others from beginning.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2*readerCount + 2))
	for i := range readerCount { // one large hole for each thread
		f, err := os.Create(fmt.Sprintf("%s/%d", root.Name(), i))
		check(t, err)
		check(t, errors.Join(f.Truncate(1<<40), f.Close()))
	}
	want := status{
		permitted: 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_ADMIN,
		effective: 1 << unix.CAP_DAC_READ_SEARCH, noNewPrivs: "1",
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := ReadBack(ctx, root); !errors.Is(err, errStop) {
			t.Errorf("ended with %v", err)
		}
	})
	if !eventually(func() bool { return countThreads(t, want) == readerCount }) {
		t.Errorf("%d threads have %+v", countThreads(t, want), want)
	}
	cancel(errStop)
	done.Wait()
}

// What a hole in the policy could ask of the writer beyond a tree of files, the kernel
// refuses; what it has to do works.
func TestWritersRights(t *testing.T) {
	root := newDisk(t, 64<<20).mount(t.TempDir()) // without nodev
	at := int(root.Fd())
	check(t, unix.Mkdir(root.Name()+"/away", 0o700))
	for name, c := range map[string]struct {
		call func() error
		want error
	}{
		"device":       {func() error { return unix.Mknodat(at, "null", unix.S_IFCHR|0o600, 0x103) }, unix.EPERM},
		"block device": {func() error { return unix.Mknodat(at, "disk", unix.S_IFBLK|0o600, 0x800) }, unix.EPERM},
		"trusted attribute": {
			func() error { return unix.Fsetxattr(at, "trusted.overlay.opaque", []byte("y"), 0) },
			unix.EPERM,
		},
		"capability": {
			func() error { return unix.Setxattr(root.Name()+"/away", capabilityXattr, fileCapability, 0) },
			unix.EPERM,
		},
		"mount": {
			func() error { return unix.Mount("none", root.Name()+"/away", "tmpfs", 0, "") },
			unix.EPERM,
		},
		"unmount": {func() error { return unix.Unmount(root.Name(), unix.MNT_DETACH) }, unix.EPERM},
		"detached mount": {
			func() error { fd, err := unix.Fsopen("ext4", 0); unix.Close(fd); return err },
			unix.EPERM,
		},
		"chroot": {func() error { return unix.Chroot(root.Name()) }, unix.EPERM},
		"immutable": {
			func() error { return unix.IoctlSetPointerInt(at, unix.FS_IOC_SETFLAGS, 0x10) },
			unix.EPERM,
		},
		"other user": {func() error {
			_, _,
				e := unix.RawSyscall(unix.SYS_SETRESUID, 1, 1, 1)
			return errnoOf(e)
		}, unix.EPERM},
		"back again": {func() error {
			return threadCaps{permitted: writeCaps | 1<<unix.CAP_MKNOD, effective: writeCaps}.set()
		}, unix.EPERM},
		"owner":          {func() error { return unix.Fchownat(at, "away", 5, 6, 0) }, nil},
		"mode":           {func() error { return unix.Fchmodat(at, "away", 0o755, 0) }, nil},
		"user attribute": {func() error { return unix.Fsetxattr(at, "user.x", []byte("y"), 0) }, nil},
		"syncfs":         {func() error { return unix.Syncfs(at) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := withOnlyCapabilities(extractCaps(archive.Distro), 0)(c.call)
			if !errors.Is(err, c.want) {
				t.Errorf("%v instead of %v", err, c.want)
			}
		})
	}
}

func errnoOf(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

const capabilityXattr = "security.capability"

// fileCapability is cap_net_raw=ep in revision 2 (linux/capability.h).
var fileCapability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// A program that a confined thread executed would gain nothing, root though it is: that
// is no_new_privs.
func TestNothingGainedByExecution(t *testing.T) {
	needRoot(t)
	var out []byte
	check(t, withOnlyCapabilities(extractCaps(archive.Strict), 0)(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "cat", "/proc/self/status").Output()
		return err
	}))
	if s := parseStatus(out); s.effective&^writeCaps != 0 || s.permitted&^writeCaps != 0 || s.noNewPrivs != "1" {
		t.Errorf("a child has %+v", s)
	}
}

// What a thread could hand to a program goes too: the inheritable and the ambient set.
func TestNothingToInherit(t *testing.T) {
	needRoot(t)
	check(t, withOnlyCapabilities(^capabilities(0), 0)(func() error {
		c, err := getCaps()
		c.inheritable = c.permitted
		err = errors.Join(err, c.set(),
			unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_CHOWN, 0, 0))
		if s := ownStatus(t); err != nil || s.inheritable == 0 || s.ambient == 0 {
			t.Errorf("nothing to take away: %+v, %v", s, err)
		}
		err = dropTo(writeCaps, 0)
		if s := ownStatus(t); err != nil || s != (status{permitted: writeCaps, effective: writeCaps, noNewPrivs: "1"}) {
			t.Errorf("left are %+v, %v", s, err)
		}
		return nil
	}))
}

// The reserve is in effect for one call and not after it, whatever that returns.
func TestRaised(t *testing.T) {
	needRoot(t)
	check(t, withOnlyCapabilities(readCaps, trustedXattrCaps)(func() error {
		n, err := withRaised(trustedXattrCaps, func() (int, error) {
			if s := ownStatus(t); s.effective != readCaps|trustedXattrCaps {
				t.Errorf("within: %+v", s)
			}
			return 7, errStop
		})
		if s := ownStatus(t); n != 7 || !errors.Is(err, errStop) || s.effective != readCaps {
			t.Errorf("after it: %+v, %d, %v", s, n, err)
		}
		return nil
	}))
}

// A thread that cannot be confined does nothing, and the error says so.
func TestNotConfined(t *testing.T) {
	refuse := func(func() error) error { return errStop }
	b := images.Tar(images.Root()...)
	plan, err := judgeBytes(t, b, archive.Strict)
	check(t, err)
	root := openTemp(t)
	var calls atomic.Int64
	refuseWorkers := func(work func() error) error { // the first to ask makes the names
		if calls.Add(1) > 1 {
			return errStop
		}
		return work()
	}
	if _, err := writeTree(t.Context(), refuse, bytes.NewReader(b), plan, root, nil); !errors.Is(err, errStop) {
		t.Errorf("writer: %v", err)
	}
	if _, err := readBack(t.Context(), refuse, root); !errors.Is(err, errStop) {
		t.Errorf("reader: %v", err)
	}
	if list, err := os.ReadDir(root.Name()); len(list) > 0 || err != nil {
		t.Errorf("written anyway: %v, %v", list, err)
	}
	if _, err := writeTree(t.Context(), refuseWorkers, bytes.NewReader(b), plan, root, nil); !errors.Is(err, errStop) {
		t.Errorf("workers: %v", err)
	}
	ctx, workers := startWorkers(t.Context(), refuse)
	for range queueDepth / 2 {
		if err := workers.submit(ctx, nil); !errors.Is(err, errStop) {
			t.Errorf("a job was accepted that nobody will run: %v", err)
		}
	}
	if err := workers.finish(ctx, nil); !errors.Is(err, errStop) {
		t.Errorf("workers: %v", err)
	}
}

// Files that wait for a worker when an extraction is cancelled are not read any more.
func TestCancelQueued(t *testing.T) {
	b := images.Tar(images.Root(withBodies(images.Numbered(500, "usr/%05d"), 10)...)...)
	plan, err := judgeBytes(t, b, archive.Strict)
	check(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	root := openTemp(t)
	var reads atomic.Int64
	src := &hooked{bytes.NewReader(b), func() {
		reads.Add(1)
		waiting := func() bool {
			list, err := os.ReadDir(root.Name() + "/rootfs/usr")
			return err == nil && len(list) > queueDepth
		}
		if !eventually(waiting) {
			t.Error("no files wait")
		}
		cancel(errStop)
	}}
	_, err = Write(ctx, src, plan, root, nil)
	if !errors.Is(err, errStop) || reads.Load() > workerCount {
		t.Errorf("%d files read, ended with %v", reads.Load(), err)
	}
}

// Nothing is kept that is not needed: without any one of them a tree is not written, or
// not read back, as it should be.
func TestEveryCapabilityIsNeeded(t *testing.T) {
	disk := newDisk(t, 64<<20).detached(0)
	b := images.Tar(images.Root(
		images.Entry{
			Name: "usr/read-only", Body: "x", Mode: 0o444, UID: 7, GID: 8,
			PAX: []string{"SCHILY.xattr.user.x=y"},
		},
		images.Entry{Name: "usr/setgid", Body: "x", Mode: 0o2755, UID: 7, GID: 8},
		images.Entry{
			Name: "usr/capable", Body: "x", Mode: 0o755,
			PAX: []string{"SCHILY.xattr." + capabilityXattr + "=" + string(fileCapability)},
		},
		images.Entry{Name: "usr/closed", Type: '5', Mode: 0o100, UID: 7},
		images.Entry{Name: "usr/closed/x", Body: "x", Mode: 0o200, UID: 7},
	)...)
	plan, err := judgeBytes(t, b, archive.Trusted)
	check(t, err)
	full := extractCaps(archive.Trusted)
	attempt := func(name string, write, read, list capabilities) error {
		dir := mkdirOn(t, disk, name)
		written, err := writeTree(t.Context(), withOnlyCapabilities(write, 0), bytes.NewReader(b), plan, dir, nil)
		if err != nil {
			return err
		}
		check(t, unix.Fsetxattr(int(dir.Fd()), "user.x", []byte("not of the tree"), 0))
		fd, err := openDir(int(dir.Fd()), "rootfs/usr")
		check(t, err)
		defer unix.Close(fd)
		found, err := readBack(t.Context(), withOnlyCapabilities(read, list), dir)
		if err != nil {
			return err
		}
		if diff := written.Diff(found, 3); len(diff) > 0 {
			return fmt.Errorf("differs: %s", strings.Join(diff, "; "))
		}
		check(t, unix.Fsetxattr(fd, "trusted.planted", []byte("x"), 0))
		found, err = readBack(t.Context(), withOnlyCapabilities(read, list), dir)
		check(t, err)
		if found.Digest() == written.Digest() {
			return errors.New("a planted trusted attribute is not seen")
		}
		return nil
	}
	check(t, attempt("all", full, readCaps, trustedXattrCaps))
	for n := range 64 {
		if one := capabilities(1) << n; full&one != 0 {
			err := attempt(fmt.Sprint("write without ", n), full&^one, readCaps, trustedXattrCaps)
			t.Logf("write without capability %d: %v", n, err)
			if err == nil {
				t.Errorf("writing does not need capability %d", n)
			}
		}
	}
	for name, err := range map[string]error{
		"reading": attempt("no reading", full, 0, trustedXattrCaps),
		"listing": attempt("no listing", full, readCaps, 0),
	} {
		t.Logf("read back without %s: %v", name, err)
		if err == nil {
			t.Errorf("reading back does not need %s", name)
		}
	}
}

// Without any capability to begin with, a tree of one's own is written and read back all
// the same.
func TestWithoutPrivileges(t *testing.T) {
	if os.Getenv("ARCHIVE_TEST_NOBODY") != "" {
		if s := ownStatus(t); s.permitted != 0 {
			t.Fatalf("the test has %+v", s)
		}
		b := images.Tar(images.Root()...)
		plan, err := judgeBytes(t, b, archive.Strict)
		check(t, err)
		root := os.NewFile(3, "root")
		written, err := Write(t.Context(), bytes.NewReader(b), plan, root, nil)
		check(t, err)
		found, err := ReadBack(t.Context(), root)
		check(t, err)
		t.Logf("written %d, read %d", len(written.Records), len(found.Records))
		if len(found.Records) != len(written.Records) {
			t.Errorf("%d written, %d read back", len(written.Records), len(found.Records))
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestWithoutPrivileges$", "-test.v")
	cmd.Dir, cmd.Env = "/", []string{"ARCHIVE_TEST_NOBODY=1"}
	root := openTemp(t)
	cmd.ExtraFiles = []*os.File{root} // its parents are root's
	if os.Geteuid() == 0 {
		check(t, root.Chown(65534, 65534))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutPrivileges") {
		t.Errorf("%v\n%s", err, out)
	}
}
