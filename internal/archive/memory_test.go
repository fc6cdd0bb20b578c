package archive

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/test/images"
)

// memoryBound is what a check and an extraction of any archive may take, in bytes, on top of a process that does nothing.
const memoryBound = 64 << 20

// heavy are archives that take as much memory as the limits let them.
func heavy() map[string]func() *segments {
	chunked := func(n int, entry func(i int) images.Entry) func() *segments {
		return func() *segments {
			s := &segments{}
			s.add(images.Blocks(images.Root()...), 0)
			for i := range n {
				s.add(images.Blocks(entry(i)), 0)
			}
			s.add(nil, 1024)
			return s
		}
	}
	name := strings.Repeat("n", 90)
	deep := strings.Repeat("d/", 100)
	longest := "path=" + strings.Repeat(strings.Repeat("d", 250)+"/", 15)
	return map[string]func() *segments{
		"long names": chunked(99_900, func(i int) images.Entry { return images.Entry{Name: fmt.Sprintf("%s%05d", name, i)} }),
		"deep paths": chunked(99_800, func(i int) images.Entry {
			return images.Entry{Name: fmt.Sprintf("%05d", i), Edit: func(b []byte) { copy(b[345:], deep[:len(deep)-1]) }}
		}),
		"paths of 4 KiB": chunked(4_000, func(i int) images.Entry { return images.Entry{Name: "x", PAX: []string{longest + fmt.Sprint(i)}} }),
		"absolute links": chunked(99_900, func(i int) images.Entry {
			return images.Entry{Name: fmt.Sprintf("usr/%s%05d", name[:80], i), Link: "/" + name}
		}),
		"attributes": chunked(4_300, func(i int) images.Entry {
			return images.Entry{Name: fmt.Sprintf("usr/%05d", i), PAX: []string{"SCHILY.xattr.user.x=" + strings.Repeat("v", 3700)}}
		}),
	}
}

// Memory is bounded whatever the archive is. Each is judged and planned in a process of its own, whose peak is taken from the kernel.
func TestMemory(t *testing.T) {
	if path := os.Getenv("ARCHIVE_TEST_HEAVY"); path != "" {
		heavyChild(t, path)
		return
	}
	if underRace {
		t.Skip("the race detector multiplies memory; the run without it measures")
	}
	idle := peak(t, "none")
	for name := range heavy() {
		used := peak(t, name) - idle
		t.Logf("%s: %d MiB", name, used>>20)
		if used > memoryBound {
			t.Errorf("%s: %d MiB, the bound is %d", name, used>>20, memoryBound>>20)
		}
	}
}

// heavyChild judges the archive in a file, plans it and makes its manifest.
func heavyChild(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	info, err := f.Stat()
	check(t, err)
	plan, err := Check(context.Background(), f, info.Size(), Options{Policy: Distro})
	check(t, err)
	m := manifestOf(plan, make([]*[32]byte, plan.tree.count), nil)
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	fmt.Printf("peak=%s records=%d\n", strings.TrimSpace(line), len(m.Records))
}

// peak is the child's largest resident set in bytes.
func peak(t *testing.T, name string) int64 {
	t.Helper()
	s := sized(1)
	if build := heavy()[name]; build != nil {
		s = build()
	}
	f, err := os.CreateTemp(t.TempDir(), "heavy")
	check(t, err)
	defer f.Close()
	for _, p := range s.parts {
		_, err := f.WriteAt(p.data, p.off)
		check(t, err)
	}
	check(t, f.Truncate(s.size))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "ARCHIVE_TEST_HEAVY="+f.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	_, rest, _ := strings.Cut(string(out), "peak=")
	text, _, _ := strings.Cut(rest, " ")
	kib, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return kib << 10
}
