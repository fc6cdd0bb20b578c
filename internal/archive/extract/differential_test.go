package extract

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
	"imagemanager.internal/test/program"
)

// seed makes every run the same; change it to look further.
const seed = 16

// randomTree returns entries with few different names, so that they collide: names twice,
// entries below links, links to what is replaced. Link targets are some of these; files
// has the names of files so far, for hard links.
func randomTree(random *rand.Rand, targets []string, files *[]string) []images.Entry {
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	list := make([]images.Entry, 3+random.IntN(6))
	for i := range list {
		name := pick("", "a/", "b/", "b/d/", "l/") + pick("f", "f", "g", "l", "d")
		e := images.Entry{Name: pick("", "", "", "/", "./") + name, Mode: 0o600 + random.Int64N(8)}
		switch kind := random.IntN(6); {
		case kind == 0 || strings.HasSuffix(name, "d"):
			e.Name, e.Mode = e.Name+"/", 0o700+random.Int64N(8)
		case kind == 1 || kind == 2 && strings.HasSuffix(name, "l"):
			e.Link = pick(targets...)
		case kind == 3 && len(*files) > 0:
			e.Type, e.Link = '1', pick("", "", "/")+pick(*files...)
		default:
			e.Body = fmt.Sprint(random.IntN(100))
			*files = append(*files, name)
		}
		list[i] = e
	}
	return list
}

// tree is what two extractors must agree on: types, modes, contents, targets, and which
// names share a file. Times are left aside: those of implied directories are anybody's.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	v, err := ReadBack(t.Context(), root)
	check(t, err)
	found := map[string]string{}
	for _, r := range v.Records {
		if r.Parent == nil || r.Parent.Parent == nil {
			continue // the top is made by the test
		}
		first, sum := cmp.Or(r.First, r).Path(), ""
		if r.SHA256 != nil {
			sum = fmt.Sprintf("%x", r.SHA256[:4])
		}
		found[r.Path()] = fmt.Sprintf("%c %04o %s -> %q, as %s", r.Type, r.Mode, sum, r.Target, first)
	}
	return found
}

// written returns the tree that an accepted archive becomes. In it the targets of
// rewritten links are what they were before: that is the recorded adjustment. It counts
// the adjustments in rules.
func written(t *testing.T, b []byte, rules map[archive.Reason]int) (found map[string]string, accepted bool) {
	t.Helper()
	opts := archive.Options{Policy: archive.Distro, Layout: []string{}}
	plan, err := archive.Check(t.Context(), bytes.NewReader(b), int64(len(b)), opts)
	if err != nil {
		return nil, false
	}
	dir := t.TempDir()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	_, err = Write(t.Context(), bytes.NewReader(b), plan, root, nil)
	check(t, err)
	found = tree(t, dir)
	for _, a := range plan.Adjustments {
		rules[a.Reason]++
		if a.Reason == archive.SymlinkAbsolute || a.Reason == archive.SymlinkEscapes {
			path := "rootfs/" + a.Entry
			found[path] = strings.Replace(found[path], fmt.Sprintf("%q", a.To), fmt.Sprintf("%q", a.From), 1)
		}
	}
	return found, true
}

// compareTrees reports how two trees of one archive differ.
func compareTrees(t *testing.T, what string, entries any, ours, theirs map[string]string) {
	t.Helper()
	paths := map[string]bool{}
	for _, m := range []map[string]string{ours, theirs} {
		for p := range m {
			paths[p] = true
		}
	}
	for p := range paths {
		if ours[p] != theirs[p] {
			t.Errorf("%s: %q: we have %s; they have %s\n%v", what, p, ours[p], theirs[p], entries)
		}
	}
}

// outline lists entries for a message.
func outline(list []images.Entry) string {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %c %s; ", e.Name, max(e.Type, ' '), e.Link)
	}
	return b.String()
}

// Random archives with colliding names become the tree that GNU tar makes of them, where
// both take them. GNU tar holds back links with ".." or an absolute target, so there are
// none here.
func TestRandomArchivesLikeGNUTar(t *testing.T) {
	needRoot(t)
	rules := map[archive.Reason]int{}
	random, agreed := rand.New(rand.NewPCG(seed, 0)), 0
	for n := range 200 {
		inside := []string{"a", "b", "b/d"}
		entries := slices.Concat([]images.Entry{
			{Name: "a/"},
			{Name: "b/d/"},
			{Name: "l", Link: inside[random.IntN(len(inside))]},
		}, randomTree(random, append(inside, "f", "./g"), new([]string)))
		b := images.Tar(entries...)
		ours, accepted := written(t, b, rules)
		if !accepted {
			continue
		}
		dir := t.TempDir()
		check(t, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
		tar := exec.CommandContext(t.Context(), "tar", "-xpf", "-", "--same-owner", "-C", filepath.Join(dir, "rootfs"))
		tar.Stdin = bytes.NewReader(b)
		if tar.Run() != nil {
			continue
		}
		agreed++
		compareTrees(t, fmt.Sprint("archive ", n), outline(entries), ours, tree(t, dir))
	}
	t.Logf("%d of 200 archives taken by both; %v", agreed, rules)
	if agreed < 100 || rules[archive.Duplicate] < 50 || rules[archive.ThroughLink] < 10 {
		t.Errorf("%d archives were taken by both, with too few adjustments: %v", agreed, rules)
	}
}

// Random images of three layers become the tree that umoci makes of them.
func TestRandomLayersLikeUmoci(t *testing.T) {
	needRoot(t)
	program.Require(t, "umoci", "umoci")
	rules := map[archive.Reason]int{}
	random, agreed := rand.New(rand.NewPCG(seed, 1)), 0
	for n := range 150 {
		im := images.Image{Index: tagged}
		var outlines, files []string
		targets := []string{"a", "b", "f", "d", "../b", "/a", "/b/d", "../../../b", "/../a", "../a/../b"}
		for range 3 {
			entries := randomTree(random, targets, &files)
			im.Layers = append(im.Layers, images.Tar(entries...))
			outlines = append(outlines, outline(entries))
		}
		members := im.OCI()
		ours, accepted := written(t, images.Tar(members...), rules)
		if !accepted {
			continue
		}
		theirs, ok := umociTree(t, members)
		if !ok {
			continue
		}
		agreed++
		compareTrees(t, fmt.Sprint("image ", n), strings.Join(outlines, "\n"), ours, theirs)
	}
	t.Logf("%d of 150 images taken by both; %v", agreed, rules)
	if agreed < 30 || rules[archive.SymlinkEscapes] < 10 || rules[archive.ThroughLink] < 10 {
		t.Errorf("%d images were taken by both, with too few adjustments: %v", agreed, rules)
	}
}

func tagged(index images.Object) {
	for _, d := range index["manifests"].([]images.Object) {
		d["annotations"] = images.Object{"org.opencontainers.image.ref.name": "x"}
	}
}

// umociTree unpacks an image with umoci. It returns false if umoci refuses it.
func umociTree(t *testing.T, members []images.Entry) (map[string]string, bool) {
	t.Helper()
	layout, dir := t.TempDir(), t.TempDir()
	for _, m := range members {
		if path := filepath.Join(layout, m.Name); strings.HasSuffix(m.Name, "/") {
			check(t, os.MkdirAll(path, 0o755))
		} else {
			check(t, os.WriteFile(path, []byte(m.Body), 0o600))
		}
	}
	unpack := exec.CommandContext(t.Context(), "umoci", "raw", "unpack", "--image", layout+":x",
		filepath.Join(dir, "rootfs"))
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Logf("umoci: %s", out)
		return nil, false
	}
	return tree(t, dir), true
}
