package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

// memoryBound is what judging and writing 100,000 entries may take, in bytes, on top of a
// process that does nothing.
const memoryBound = 64 << 20

// Memory is bounded at 100,000 entries. Each tree is judged and written in a process of
// its own, whose peak is taken from the kernel.
func TestMemory(t *testing.T) {
	if device := os.Getenv("DIRECT_TEST_DEVICE"); device != "" {
		memoryChild(t, device, os.Getenv("DIRECT_TEST_ARCHIVE"))
		return
	}
	if underRace {
		t.Skip("the race detector multiplies memory; the run without it measures")
	}
	d := newDisk(t, 1600<<20)
	idle := d.peak("")
	names := []string{"empty files with long names in one directory"}
	if full() {
		names = append(names, "directories in one directory", "files of one byte", "two attributes each")
	}
	for _, name := range names {
		d.format()
		used := d.peak(writeArchive(t, extreme(t, 1)[name])) - idle
		t.Logf("%s: %d MiB", name, used>>20)
		if used > memoryBound {
			t.Errorf("%s: %d MiB, the bound is %d", name, used>>20, memoryBound>>20)
		}
	}
}

func writeArchive(t *testing.T, build func() (io.ReaderAt, int64)) string {
	t.Helper()
	src, size := build()
	f, err := os.CreateTemp(t.TempDir(), "archive")
	check(t, err)
	_, err = io.Copy(f, io.NewSectionReader(src, 0, size))
	check(t, errors.Join(err, f.Close()))
	return f.Name()
}

// peak is the largest resident set of a process that writes an archive, in bytes.
func (d *disk) peak(path string) int64 {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "DIRECT_TEST_DEVICE="+d.path, "DIRECT_TEST_ARCHIVE="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "peak=")
	text, _, _ := strings.Cut(rest, " ")
	kib, err := strconv.ParseInt(text, 10, 64)
	check(d.t, err)
	return kib << 10
}

// memoryChild judges the archive in a file and writes it, if there is one.
func memoryChild(t *testing.T, device, path string) {
	t.Helper()
	if path != "" {
		src, err := os.Open(path)
		check(t, err)
		info, err := src.Stat()
		check(t, err)
		plan, err := archive.Check(context.Background(), src, info.Size(), archive.Options{Policy: archive.Distro})
		check(t, err)
		f, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT|unix.O_EXCL, 0)
		check(t, err)
		check(t, attempt(context.Background(), f, src, plan, Options{Seal: seal, Verify: true}, nil))
		check(t, errors.Join(src.Close(), f.Close()))
	}
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	fmt.Printf("peak=%s \n", strings.TrimSpace(line))
}
