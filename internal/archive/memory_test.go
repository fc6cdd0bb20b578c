package archive

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// memoryBound is what a check of any archive and its plan may take, in bytes, on top of a
// process that does nothing.
const memoryBound = 64 << 20

// heavy are archives that take as much memory as the limits let them, or would if they
// were not refused in time.
func heavy() map[string]func() *images.Sparse {
	name := strings.Repeat("n", 90)
	file := func(name string, i int) images.Entry { return images.Entry{Name: fmt.Sprintf("%s%05d", name, i)} }
	below := func(e images.Entry) images.Entry {
		e.Edit = func(b []byte) { copy(b[345:], strings.Repeat("d/", 99)+"d") }
		return e
	}
	longest := func(i int) images.Entry {
		dir := fmt.Sprintf("%05d", i) + strings.Repeat("d", 245) + "/"
		return images.Entry{Name: "x", PAX: []string{"path=" + strings.Repeat(dir, 15) + "x"}}
	}
	plain := func(i int) images.Entry { return file(name, i) }
	absolute := func(i int) images.Entry { return linked(plain(i), "/"+name) }
	large := func(o images.Object) { o["x"], o["y"] = make([]int, 49_000), strings.Repeat("y", 3<<20) }
	return map[string]func() *images.Sparse{
		"long names":     flat(99_900, plain),
		"deep paths":     flat(99_800, func(i int) images.Entry { return below(file("", i)) }),
		"paths of 4 KiB": flat(4_000, longest),
		"100,000 PAX paths": flat(100_000-8, func(i int) images.Entry { // the root file system has 8
			return images.Entry{Name: "x", PAX: []string{fmt.Sprintf("path=usr/%05d%s", i, strings.Repeat("n", 181))}}
		}),
		"90 MiB of extended headers": flat(1_500, func(i int) images.Entry {
			e := plain(i)
			e.PAX = []string{"comment=" + strings.Repeat("c", 60<<10)}
			return e
		}),
		"absolute links": flat(99_900, absolute),
		"deep absolute links, refused": flat(99_800, func(i int) images.Entry {
			return below(linked(file("", i), "/"+name))
		}),
		"one absolute link, many names, refused": flat(60_000, func(i int) images.Entry {
			if i == 0 {
				e := linked(file("", 0), "x")
				e.PAX = []string{"linkpath=/" + strings.Repeat("t/", 2_000)}
				return e
			}
			return images.Entry{Name: file("", i).Name, Type: '1', Link: file("", 0).Name}
		}),
		"attributes": flat(4_300, func(i int) images.Entry {
			return attributed(file("", i), 1, strings.Repeat("v", 3700))
		}),
		"an attribute each": flat(99_900, func(i int) images.Entry { return attributed(plain(i), 1, name[:20]) }),
		"small attributes, refused": flat(3_500, func(i int) images.Entry {
			return attributed(plain(i), 180, "")
		}),
		"layers":                         layered(99_900, plain, nil),
		"layers with absolute links":     layered(99_900, absolute, nil),
		"layers and a document of 3 MiB": layered(99_900, absolute, large),
	}
}

func linked(e images.Entry, target string) images.Entry {
	e.Link = target
	return e
}

// attributed gives an entry n attributes of this value.
func attributed(e images.Entry, n int, value string) images.Entry {
	for k := range n {
		e.PAX = append(e.PAX, fmt.Sprintf("SCHILY.xattr.user.%x=%s", k, value))
	}
	return e
}

// flat is a root file system with n more entries.
func flat(n int, entry func(int) images.Entry) func() *images.Sparse {
	return func() *images.Sparse {
		s := &images.Sparse{}
		s.Add(images.Tar(images.Root(many(n, entry)...)...), 0)
		return s
	}
}

func many[T any](n int, each func(int) T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = each(i)
	}
	return list
}

// layered is an image with a layer of n entries, the root file system among them, in an
// archive that has n members, too.
func layered(n int, entry func(int) images.Entry, config func(images.Object)) func() *images.Sparse {
	return func() *images.Sparse {
		root := images.Root()
		crowd := images.Blocks(many(n-len(root), entry)...)
		layer := images.End(append(images.Blocks(root...), crowd...))
		image := images.Image{Layers: [][]byte{layer}, Config: config}.OCI()
		s := &images.Sparse{}
		s.Add(images.Blocks(image...), 0)
		s.Add(crowd, 0)
		s.Add(nil, 1024)
		return s
	}
}

// Memory is bounded whatever the archive is. Each is judged and planned in a process of
// its own, whose peak is taken from the kernel.
func TestMemory(t *testing.T) {
	if path := os.Getenv("ARCHIVE_TEST_HEAVY"); path != "" {
		heavyChild(t, os.Getenv("ARCHIVE_TEST_HEAVY_NAME"), path)
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

// heavyChild judges the archive in a file, plans it and makes its inventory.
func heavyChild(t *testing.T, name, path string) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	info, err := f.Stat()
	check(t, err)
	plan, err := Check(context.Background(), f, info.Size(), Options{Policy: Distro})
	var list []*fstree.Record
	if err == nil {
		list = records(t, plan)
	}
	if refused := outcome(t, err) != ""; refused != strings.Contains(name, "refused") {
		t.Errorf("refused %t: %v", refused, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	fmt.Printf("peak=%s records=%d\n", strings.TrimSpace(line), len(list))
}

// peak is the child's largest resident set in bytes.
func peak(t *testing.T, name string) int64 {
	t.Helper()
	s := images.Sized(1)
	if build := heavy()[name]; build != nil {
		s = build()
	}
	f, err := os.CreateTemp(t.TempDir(), "heavy")
	check(t, err)
	defer f.Close()
	check(t, s.WriteFile(f))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "ARCHIVE_TEST_HEAVY="+f.Name(), "ARCHIVE_TEST_HEAVY_NAME="+name)
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
