package devmapper

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/devmapper/tool"
)

// helperEnv makes this test binary a process that holds something until it is killed.
const helperEnv = "CIM_DEVMAPPER_HELPER"

func TestMain(m *testing.M) {
	if task := os.Getenv(helperEnv); task != "" {
		fmt.Println(helper(task, os.Args[1:]))
		for {
			_ = unix.Pause() // killed by the test
		}
	}
	code := m.Run()
	for _, leak := range append(kernelLeaks(), goroutineLeaks()...) {
		fmt.Fprintln(os.Stderr, "left behind:", leak)
		code = 1
	}
	os.Exit(code)
}

func goroutineLeaks() []string {
	if err := goleak.Find(); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// kernelLeaks looks at the machine, not at what the tests remember. Loops that other
// packages' tests have at the same time are on files of other names. A loop may be there
// for a moment after its end: udevd looks into it.
func kernelLeaks() (leaks []string) {
	always := func(error) bool { return true }
	_ = retryWhile(busyTimeout, always, func() error {
		if leaks = leaksNow(); len(leaks) > 0 {
			return ErrBusy
		}
		return nil
	})
	return leaks
}

func leaksNow() []string {
	var leaks []string
	for _, p := range glob("/sys/block/dm-*/dm/name") {
		if name := firstLine(p); strings.HasPrefix(name, namePrefix) {
			leaks = append(leaks, "dm device "+name)
		}
	}
	for _, p := range glob(dmctl.Dir + namePrefix + "*") {
		leaks = append(leaks, "node "+p)
	}
	for _, p := range glob("/sys/block/loop*/loop/backing_file") {
		if f := firstLine(p); strings.Contains(f, ".img") {
			leaks = append(leaks, "loop of "+f)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, namePrefix) {
			leaks = append(leaks, "mount "+strings.TrimSpace(line))
		}
	}
	return leaks
}

// kept keeps what the other process holds from the garbage collector.
var kept any

// helper runs in the other process.
func helper(task string, args []string) string {
	switch task {
	case "mount":
		m, err := MountDetached(args[0], ext4.MountBuild)
		if err != nil {
			return err.Error()
		}
		kept = m
	case "open":
		f, err := os.Open(args[0])
		if err != nil {
			return err.Error()
		}
		kept = f
	default:
		return "unknown task " + task
	}
	return "ready"
}

// other starts a process that does the task and holds on to it. kill kills and reaps it.
func other(t *testing.T, task string, args ...string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+task)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	done := false
	kill = func() {
		if !done {
			done = true
			check(t, cmd.Process.Kill())
			_ = cmd.Wait() // it says that it was killed
		}
	}
	t.Cleanup(kill)
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("the other process says %q", line)
	}
	return cmd.Process.Pid, kill
}

// needDM skips where there is no thin pool and nobody insists on one; `make test-uml`
// does.
func needDM(t testing.TB) {
	t.Helper()
	err := Probe()
	if err == nil {
		return
	}
	if os.Getenv("CIM_REQUIRE_DM") == "1" {
		t.Fatalf("a thin pool is required: %v", err)
	}
	t.Skipf("needs a thin pool, run by `make test-uml`: %v", err)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	mib        = int64(1) << 20
	deviceSize = 64 * mib
)

// newConfig makes files for a pool and sees to it that nothing of it is left when the
// test ends.
func newConfig(t testing.TB, data, metadata int64) Config {
	t.Helper()
	needDM(t)
	dir := t.TempDir()
	cfg := Config{
		Name: "t" + hex.EncodeToString([]byte(uuid.NewString()[:4])), UUID: uuid.NewString(), BlockSize: minBlockSize,
		Data: filepath.Join(dir, "data.img"), Metadata: filepath.Join(dir, "metadata.img"),
	}
	check(t, CreateFiles(cfg.Data, cfg.Metadata, data, metadata))
	t.Cleanup(func() { check(t, Detach(cfg)) })
	return cfg
}

// newPool makes a pool of 512 MiB.
func newPool(t testing.TB) (*Pool, Config) {
	t.Helper()
	cfg := newConfig(t, 512*mib, minMetadataSize)
	return created(t, cfg), cfg
}

// opened calls Create or Open and closes the pool when the test ends.
func opened(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := Open(t.Context(), cfg)
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return p
}

func created(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := Create(cfg)
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return p
}

// newImage makes thin device 1, active.
func newImage(t testing.TB, p *Pool) string {
	t.Helper()
	check(t, p.CreateThin(1))
	path, err := p.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	return path
}

// fill writes size bytes, none of them zero, to a device or file, and syncs.
func fill(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	_, err = io.CopyN(f, endless("sealed image "), size)
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
}

type endless string

func (e endless) Read(b []byte) (int, error) {
	return copy(b, bytes.Repeat([]byte(e), len(b)/len(e)+1)), nil
}

func digest(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	check(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

// run runs a program of the system.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := tool.Program{Name: name, Package: name}.Find()
	check(t, err)
	out, err := tool.Run(context.Background(), path, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

// suspendDevice leaves a device as a crash within the replacement of its table could.
func suspendDevice(t testing.TB, uuid string) {
	t.Helper()
	run(t, "dmsetup", "suspend", "--uuid", uuid)
}
