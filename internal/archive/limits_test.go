package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/test/images"
)

// Each limit of the specification is accepted at the limit and refused above it, from the
// headers alone.
func TestLimits(t *testing.T) {
	const gib = 1 << 30
	rest := int64(10*gib) - 9*gib - 1206 // what the small root file system holds
	const rootEntries = 8                // of it, the root not counted
	const rootText = 34                  // bytes of its names and targets
	links := make([]images.Entry, 65_000)
	for i := range links {
		links[i] = images.Entry{Name: fmt.Sprintf("usr/%05d", i), Type: '1', Link: "etc/hello"}
	}
	inMemory := func(list ...images.Entry) *images.Sparse {
		s := &images.Sparse{}
		s.Add(images.Tar(images.Root(list...)...), 0)
		return s
	}
	endless := inMemory()
	endless.Add(nil, 10*gib+1-endless.Size())
	longNames := images.Numbered(100, strings.Repeat("n", 90)+"%05d")
	attribute := images.Entry{Name: "usr/attrs", PAX: []string{"SCHILY.xattr.user.x=v"}}
	image, documents := &images.Sparse{}, int64(0)
	for _, e := range (images.Image{Layers: [][]byte{images.Tar(images.Root()...)}}).OCI() {
		image.Add(images.Blocks(e), 0)
		if strings.HasPrefix(e.Body, "{") { // and the layer does not
			documents += int64(len(e.Body))
		}
	}
	image.Add(nil, 1024)
	for _, c := range []struct {
		name   string
		src    *images.Sparse
		limits Limits
		want   Reason
	}{
		{"file of 1 GiB", images.Sized(gib), Limits{}, ""},
		{"file of 1 GiB and a byte", images.Sized(gib + 1), Limits{}, FileTooBig},
		{
			"files of 10 GiB, limit of the archive aside",
			images.Sized(gib, gib, gib, gib, gib, gib, gib, gib, gib, rest),
			Limits{},
			ImageTooBig,
		},
		{"archive over 10 GiB", endless, Limits{}, ImageTooBig},
		{"sum at the limit", images.Sized(1000), Limits{ImageBytes: 1206 + 1000 + 20_000}, ""},
		{"archive over the limit", images.Sized(1000), Limits{ImageBytes: 2000}, ImageTooBig},
		{"entries at the limit", inMemory(images.Numbered(100-rootEntries, "usr/%05d")...), Limits{Entries: 100}, ""},
		{
			"entries over the limit", inMemory(images.Numbered(101-rootEntries, "usr/%05d")...),
			Limits{Entries: 100},
			TooManyEntries,
		},
		{
			"implied directories count", inMemory(images.Numbered(60, "usr/%05d/x")...),
			Limits{Entries: 100},
			TooManyEntries,
		},
		{"texts at the limit", inMemory(longNames...), Limits{TreeBytes: rootText + 9_500}, ""},
		{"texts over the limit", inMemory(longNames...), Limits{TreeBytes: rootText + 9_499}, TreeLimit},
		{"an attribute at the limit", inMemory(attribute), Limits{TreeBytes: rootText + 5 + 6 + 1 + 64}, ""},
		{"an attribute over the limit", inMemory(attribute), Limits{TreeBytes: rootText + 5 + 6 + 1 + 63}, TreeLimit},
		{"descriptors at the limit", image, Limits{Descriptors: 2}, ""},
		{"descriptors over the limit", image, Limits{Descriptors: 1}, ManifestLimit},
		{"documents at the limit", image, Limits{DocumentBytes: documents}, ""},
		{"documents over the limit", image, Limits{DocumentBytes: documents - 1}, ManifestLimit},
		{"names of a file at the limit", inMemory(links[:64_999]...), Limits{}, ""},
		{"names of a file over the limit", inMemory(links...), Limits{}, HardlinkLimit},
		{"100,000 entries", inMemory(images.Numbered(100_000-rootEntries, "usr/%05d")...), Limits{}, ""},
		{"100,001 entries", inMemory(images.Numbered(100_001-rootEntries, "usr/%05d")...), Limits{}, TooManyEntries},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Check(t.Context(), c.src, c.src.Size(), Options{Limits: c.limits})
			if got := outcome(t, err); got != string(c.want) {
				t.Errorf("outcome %q, want %q: %v", got, c.want, err)
			}
		})
	}
}

// A maze of links costs a bounded number of steps.
func TestMaze(t *testing.T) {
	list := []images.Entry{{Name: "usr/m00/"}}
	for i := range 50_000 { // each follows 40 links, and looks at a dozen directories on the way
		list = append(list, images.Entry{Name: fmt.Sprintf("usr/l%05d", i), Link: strings.Repeat("m00/../", 10) +
			fmt.Sprintf("l%05d", max(i-1, 0))})
	}
	b := images.Tar(images.Root(list...)...)
	_, err := judgeBytes(t, b, Strict)
	if got := outcome(t, err); got != string(SymlinkMaze) { // which says that they were counted, and were too many
		t.Errorf("outcome %q", got)
	}
}

var errStop = errors.New("stop")

// A check with a cancelled context ends at once: reading headers, zeros at the end,
// hashing layers.
func TestCancelledEverywhere(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	flat := images.Sized(1000)
	oci := images.Tar(images.Image{Layers: [][]byte{images.Tar(images.Root()...)}}.OCI()...)
	if _, err := Check(ctx, flat, flat.Size(), Options{}); !errors.Is(err, errStop) {
		t.Errorf("check: %v", err)
	}
	if _, err := Check(ctx, bytes.NewReader(oci), int64(len(oci)), Options{}); !errors.Is(err, errStop) {
		t.Errorf("check of layers: %v", err)
	}
}

// An archive that is shorter than announced is ErrChanged and nothing else. A plan
// notices a change after the check.
func TestChanged(t *testing.T) {
	b := images.Tar(images.Root(images.Entry{Name: "var/x", Body: strings.Repeat("x", 5000)})...)
	file := func() *os.File {
		f, err := os.Create(t.TempDir() + "/x.tar")
		check(t, err)
		t.Cleanup(func() { f.Close() })
		_, err = f.Write(b)
		check(t, err)
		return f
	}
	if _, err := Check(t.Context(), file(), int64(len(b))+512, Options{}); !errors.Is(err, ErrChanged) {
		t.Errorf("shorter than announced: %v", err)
	}
	for name, change := range map[string]func(*os.File) error{
		"cut":     func(f *os.File) error { return f.Truncate(int64(len(b)) - 2048) },
		"touched": func(f *os.File) error { return os.Chtimes(f.Name(), time.Time{}, time.Unix(1, 0)) },
		"written": func(f *os.File) error {
			_, err := f.WriteAt([]byte("y"), 600)
			return errors.Join(err, f.Truncate(int64(len(b))+1))
		},
	} {
		f := file()
		plan, err := Check(t.Context(), f, int64(len(b)), Options{})
		check(t, err)
		check(t, change(f))
		if plan.Unchanged(f) {
			t.Errorf("%s: the change is not noticed", name)
		}
	}
}

// The defaults are the specification's, and a policy has three names.
func TestOptions(t *testing.T) {
	l := DefaultLimits()
	if l.ImageBytes != 10<<30 || l.FileBytes != 1<<30 || l.Entries != 100_000 {
		t.Errorf("limits %+v", l)
	}
	if got := (Limits{Entries: 5}).withDefaults(); got.Entries != 5 || got.FileBytes != l.FileBytes {
		t.Errorf("limits %+v", got)
	}
	for name, want := range map[string]Policy{
		"": Strict, "strict": Strict, "distro": Distro, "trusted": Trusted,
		"Strict": "", "none": "",
	} {
		if got, err := ParsePolicy(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
	b := images.Tar(images.Root()...)
	if _, err := Check(t.Context(), bytes.NewReader(b), int64(len(b)), Options{Policy: "x"}); err == nil ||
		asRejection(err) != nil {
		t.Errorf("an unknown policy: %v", err)
	}
	if _, err := Check(t.Context(), bytes.NewReader(b), int64(len(b)),
		Options{Layout: []string{"etc", "usr/lib"}}); outcome(t, err) != "layout" {
		t.Errorf("another layout: %v", err)
	}
}

// The table of rules is complete and consistent.
func TestRules(t *testing.T) {
	dispositions := []Disposition{Reject, Keep, Rewrite, Strip, Skip, Replace, Clamp, Close}
	for _, r := range Rules() {
		if r.Group == "" || r.When == "" || !slices.Contains(dispositions, r.Strict) ||
			!slices.Contains(dispositions, r.Distro) || !slices.Contains(dispositions, r.Trusted) {
			t.Errorf("incomplete: %+v", r)
		}
		if r.Strict != Reject {
			t.Errorf("%s: strict lets it pass", r.Reason)
		}
		if r.Violation && (r.Distro != Reject || r.Trusted != Reject) {
			t.Errorf("%s: an attack that a policy accepts", r.Reason)
		}
		if byReason[r.Reason] != r {
			t.Errorf("%s: two rules", r.Reason)
		}
	}
}
