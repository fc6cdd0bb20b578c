package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/test/images"
)

func report(t *testing.T, b []byte, policy Policy) *Report {
	t.Helper()
	r, err := Judge(t.Context(), bytes.NewReader(b), int64(len(b)), Options{Policy: policy})
	check(t, err)
	if (r.Plan == nil) != (len(r.Rejections) > 0) {
		t.Fatalf("plan %v, rejections %v", r.Plan, r.Rejections)
	}
	return r
}

// Of a rule that is broken often, the first cases are described, and the others counted.
// They hide neither another rule nor an attack.
func TestReportHasEveryRule(t *testing.T) {
	links := images.Numbered(100, "usr/%05d")
	for i := range links {
		links[i].Link = "/etc/hello"
	}
	list := append(images.Root(links...), images.Entry{Name: "usr/pipe", Type: '6'}, images.Entry{Name: "../x"})
	r := report(t, images.Tar(list...), Strict)
	if first := r.Rejections[0]; first.Reason != DotdotName || first.Entry != "../x" || !first.Violation {
		t.Errorf("the first one is %v", first)
	}
	described := map[Reason]int{}
	for _, rejection := range r.Rejections {
		described[rejection.Reason]++
	}
	if described[SymlinkAbsolute] != maxRejections || described[FIFO] != 1 || r.RefusedBy[SymlinkAbsolute] != 100 {
		t.Errorf("described %v of %v", described, r.RefusedBy)
	}
	if text := r.Rejection().Error(); !strings.HasSuffix(text, "(and 101 more: 100 symlink_absolute, 1 fifo)") {
		t.Error(text)
	}
	if r.Incomplete || r.Shape != Flat {
		t.Errorf("incomplete %t, shape %q", r.Incomplete, r.Shape)
	}
}

// A message names no more than a few rules, violations first.
func TestOtherRulesAreBounded(t *testing.T) {
	got := listOthers(map[Reason]int{
		Sparse: 1, DotdotName: 1, Layout: 1, Whiteout: 6, SpecialBits: 7, Duplicate: 8, FIFO: 9,
	})
	if want := "1 dotdot_name, 9 fifo, 8 duplicate, 7 special_bits, 6 whiteout, 2 other rules"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Where the reading ends, the report says so, and does not miss what it has not read.
func TestReportOfWhatWasNotRead(t *testing.T) {
	whole := images.Tar(images.Root()...)
	garbled := bytes.Clone(whole)
	garbled[3*512+1]++ // the header of var/, the fourth entry
	ended := report(t, garbled, Distro)
	if len(ended.Rejections) != 1 || ended.RefusedBy[ParseError] != 1 || !ended.Rejections[0].Ended ||
		!ended.Incomplete {
		t.Errorf("%+v: %v", ended, ended.Rejections)
	}
	read := report(t, images.Tar(images.Entry{Name: "etc/"}, images.Entry{Name: "etc/pipe", Type: '6'}), Strict)
	if read.Incomplete || read.RefusedBy[FIFO] != 1 || read.RefusedBy[Layout] != 1 {
		t.Errorf("%+v: %v", read, read.Rejections)
	}
}

// A layer without its end marker was read to its end; its digest says so. A plain archive
// may be truncated.
func TestReportOfMissingEndMarkers(t *testing.T) {
	unterminated := images.Blocks(images.Root()...)
	layered := images.Tar(images.Image{Layers: [][]byte{unterminated}}.OCI()...)
	for want, b := range map[bool][]byte{false: layered, true: unterminated} {
		if r := report(t, b, Strict); r.Incomplete != want || r.RefusedBy[NoEOFMarker] != 1 || len(r.RefusedBy) != 1 {
			t.Errorf("incomplete %t, want %t: %v", r.Incomplete, want, r.Rejections)
		}
	}
}

// A fault in a layer names the layer of its entry, not of one above that lies below it.
func TestReportNamesTheLayer(t *testing.T) {
	image := images.Image{Layers: [][]byte{
		images.Tar(images.Root()...),
		images.Tar(images.Entry{Name: "opt/", Mode: 0o2755}),
		images.Tar(images.Entry{Name: "opt/file"}, images.Entry{Name: "../x"}),
	}}
	r := report(t, images.Tar(image.Docker()...), Strict)
	for k, want := range []struct {
		reason Reason
		entry  string
		layer  int
	}{{DotdotName, "../x", 3}, {SetuidSetgid, "opt", 2}} {
		if got := r.Rejections[k]; got.Reason != want.reason || got.Entry != want.entry || got.Layer != want.layer {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if text := r.Rejection().Error(); !strings.Contains(text, "dotdot_name: layer 3: ") {
		t.Error(text)
	}
}

// A file is known again behind what counts its bytes, or the like.
func TestChangeOfAWrappedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	b := images.Tar(images.Root()...)
	check(t, os.WriteFile(path, b, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	src := struct{ *os.File }{f}
	r, err := Judge(t.Context(), src, int64(len(b)), Options{})
	check(t, err)
	same := r.Plan.Unchanged(src)
	check(t, f.Truncate(0))
	if !same || r.Plan.Unchanged(src) {
		t.Errorf("unchanged %t, then %t", same, r.Plan.Unchanged(src))
	}
}

func TestPlatformOfAnImage(t *testing.T) {
	for config, want := range map[string]string{
		"":                                      "",
		`{"os":"linux","architecture":"amd64"}`: "linux/amd64",
		`{"os":"linux","architecture":"arm64","variant":"v8"}`: "linux/arm64/v8",
		`{}`: "",
	} {
		if got := (&Plan{Config: []byte(config)}).Platform(); got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}
