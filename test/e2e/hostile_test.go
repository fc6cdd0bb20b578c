package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/images"
)

// upload is an archive under a policy, and what must become of it.
type upload struct {
	name, key string
	body      []byte
	reason    string // the code of the rule that refuses it; empty where the image must be active
}

// wantState is how the image must end.
func (u upload) wantState() store.State {
	if u.reason == "" {
		return store.StateActive
	}
	rules := archive.Rules()
	i := slices.IndexFunc(rules, func(r archive.Rule) bool { return string(r.Reason) == u.reason })
	if i >= 0 && rules[i].Violation {
		return store.StateViolation
	}
	return store.StateRejected
}

// hostileUploads is every test archive under the strict policy, and under the others
// where they judge differently. The archives of other projects' tests are not root file
// systems, so that the rule on the layout refuses them. Those without another fault come
// again as layers above a root file system.
func hostileUploads(t *testing.T) []upload {
	t.Helper()
	var all []upload
	add := func(name, policy, reason string, body []byte) {
		key := fmt.Sprintf("images/%s/%04d.tar", policy, len(all))
		all = append(all, upload{name: name + " under " + policy, key: key, body: body, reason: reason})
	}
	for _, c := range images.Cases() {
		for _, policy := range []string{"strict", "distro", "trusted"} {
			if policy == "strict" || c.Outcome(policy) != c.Strict {
				add(c.Group+"/"+c.Name, policy, c.Outcome(policy), c.Bytes)
			}
		}
	}
	corpus, err := images.Corpus()
	if err != nil || len(corpus) < 200 {
		t.Fatalf("corpus of %d archives: %v", len(corpus), err)
	}
	var faultless [][]byte
	for _, c := range corpus {
		reason := c.Strict
		if reason == "" {
			reason = string(archive.Layout)
		}
		add(c.Name, "strict", reason, c.Bytes)
		if c.Distro == "" {
			faultless = append(faultless, c.Bytes)
		}
	}
	for few := range slices.Chunk(faultless, 6) { // few, so that little is hidden by what lies above
		im := images.Image{Layers: slices.Concat([][]byte{images.Tar(images.Root()...)}, few)}
		add("corpus in layers", "distro", "", images.Tar(im.OCI()...))
	}
	return all
}

// Acceptance test 7 to full depth: every archive of test/images, and every one of the
// corpus, goes the whole way from the bucket to its end, under one daemon whose policy is
// chosen by the key. Afterwards every device and file belongs to an active image, and
// nothing outside of the devices has changed.
func TestHostileArchives(t *testing.T) {
	uploads := hostileUploads(t)
	const aside = 256 << 10
	h := newSizedHost(t, "8GiB", "IMAGE_POLICIES=images/distro/:distro,images/trusted/:trusted", "DEVICE_SIZE=64MiB",
		"LOG_LEVEL=info",
		fmt.Sprintf("VIOLATIONS_SIZE=%d", aside))
	s := newSentinel(t)
	// of the daemon as well: a name that is not taken relative to the device's root lands
	// in the sentinel
	t.Chdir(s.inside())
	h.Start()
	for _, u := range uploads {
		h.put(u.key, u.body)
	}
	h.WaitLonger(time.Duration(len(uploads))*time.Second, "the queue is empty", h.IsDrained)
	h.Stop()
	h.checkVerdicts(uploads)
	h.checkKeptArchives(uploads, aside)
	h.Look()
	h.checkSnapshots()
	s.checkUnchanged()
}

// checkVerdicts compares the state of each image, in the journal and in the log, with the
// state it must have.
func (h *host) checkVerdicts(uploads []upload) {
	h.T.Helper()
	list, err := h.Store.Images(h.T.Context())
	h.Check(err)
	images := map[string]store.Image{}
	for _, img := range list {
		images[img.Key] = img
	}
	if len(list) != len(uploads) || len(images) != len(uploads) {
		h.T.Errorf("%d images of %d keys, want %d", len(list), len(images), len(uploads))
	}
	verdicts, ends := h.refusalsLogged(), map[store.State]int{}
	for _, u := range uploads {
		img, state := images[u.key], u.wantState()
		ends[state]++
		if img.State != state || !strings.Contains(img.Reason, u.reason) || u.reason == "" && img.Reason != "" {
			h.T.Errorf("%s (%s) ended %s: %q, want %s: %s", u.name, u.key, img.State, img.Reason, state, u.reason)
		}
		if want := (logged{rule: u.reason, violation: state == store.StateViolation}); state != store.StateActive &&
			verdicts[u.key] != want {
			h.T.Errorf("%s (%s): logged %+v, want %+v", u.name, u.key, verdicts[u.key], want)
		}
	}
	h.T.Logf("%d archives ended: %v", len(uploads), ends)
}

// logged is what the log says of a refusal.
type logged struct {
	rule      string
	violation bool
}

// refusalsLogged returns the last refusal in the log by key.
func (h *host) refusalsLogged() map[string]logged {
	h.T.Helper()
	text := h.Log()
	found := map[string]logged{}
	for line := range bytes.Lines(text) {
		var l struct {
			Event, Reason string
			Key           string `json:"s3_key"`
			Violation     string `json:"security_violation"`
		}
		if json.Unmarshal(line, &l) == nil && l.Event == string(store.EventFailed) {
			found[l.Key] = logged{rule: l.Reason, violation: l.Violation == l.Reason}
		}
	}
	return found
}

// checkKeptArchives checks the archives that are kept: attacks only, each under its hash,
// within the budget.
func (h *host) checkKeptArchives(uploads []upload, budget int64) {
	h.T.Helper()
	attacks, all := map[string]bool{}, int64(0)
	for _, u := range uploads {
		if u.wantState() == store.StateViolation {
			attacks[sha256Hex(u.body)+".tar"] = true
			all += int64(len(u.body))
		}
	}
	if all < 2*budget {
		h.T.Errorf("attacks of %d bytes do not try a budget of %d", all, budget)
	}
	files, err := os.ReadDir(filepath.Join(h.dir(), "state", "violations"))
	h.Check(err)
	size := int64(0)
	for _, f := range files {
		body, err := os.ReadFile(filepath.Join(h.dir(), "state", "violations", f.Name()))
		h.Check(err)
		size += int64(len(body))
		if !attacks[f.Name()] || f.Name() != sha256Hex(body)+".tar" {
			h.T.Errorf("kept aside: %s, which was no attack or has another hash", f.Name())
		}
	}
	if len(files) == 0 || size > budget {
		h.T.Errorf("%d archives of %d bytes are kept aside within %d", len(files), size, budget)
	}
}

// checkSnapshots checks that every active image has one snapshot with a clean file
// system, and that other images have none.
func (h *host) checkSnapshots() {
	h.T.Helper()
	list, err := h.Store.Images(h.T.Context())
	h.Check(err)
	for _, img := range list {
		rows, err := h.Store.SnapshotsOf(h.T.Context(), img.ID)
		h.Check(err)
		devices, err := h.Store.DevicesOf(h.T.Context(), img.ID)
		h.Check(err)
		if active := img.State == store.StateActive; active != (len(rows) == 1) || active != (len(devices) == 2) ||
			!active && len(rows)+len(devices) > 0 {
			h.T.Errorf("%s is %s and has %d snapshots, %d devices", img.Key, img.State, len(rows), len(devices))
		}
		for _, r := range rows {
			if out, err := exec.CommandContext(h.T.Context(), "e2fsck", "-fn", r.Path).CombinedOutput(); err != nil {
				h.T.Errorf("%s: e2fsck: %v\n%s", img.Key, err, out)
			}
		}
	}
}

// sentinel is a tree beside the devices. Whatever leaves a device by a relative name
// lands here.
type sentinel struct {
	t      *testing.T
	dir    string
	before string
}

func newSentinel(t *testing.T) *sentinel {
	t.Helper()
	s := &sentinel{t: t, dir: t.TempDir()}
	for _, d := range []string{"", "a", "a/b", "a/b/c"} {
		for _, sub := range []string{"etc/cron.d", "usr/bin", "var", "tmp", "rootfs/etc"} {
			must(os.MkdirAll(filepath.Join(s.dir, d, sub), 0o751))
		}
		for _, f := range []string{"x", "etc/passwd", "etc/hello", "usr/bin/tool", "rootfs/etc/hello"} {
			must(os.WriteFile(filepath.Join(s.dir, d, f), []byte("sentinel"), 0o640))
		}
	}
	s.before = s.state()
	return s
}

// inside is a directory deep in the tree.
func (s *sentinel) inside() string { return filepath.Join(s.dir, "a/b/c") }

// state is the tree's digest, and what files of the machine look like that hostile
// archives aim at.
func (s *sentinel) state() string {
	s.t.Helper()
	root, err := os.Open(s.dir)
	must(err)
	defer root.Close()
	m, err := extract.ReadBack(s.t.Context(), root)
	must(err)
	state := m.Digest()
	for _, p := range []string{
		"/etc/passwd", "/etc/shadow", "/etc/cron.d", "/etc/hello", "/etc/x", "/tmp/moo",
		"/tmp/x", "/x",
	} {
		var st unix.Stat_t
		err := unix.Lstat(p, &st)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			s.t.Fatal(err)
		}
		state += fmt.Sprintf("\n%s %v %d %d %o %v", p, err, st.Ino, st.Size, st.Mode, st.Mtim)
	}
	return state
}

func (s *sentinel) checkUnchanged() {
	s.t.Helper()
	if now := s.state(); now != s.before {
		s.t.Errorf("something outside of the devices has changed:\n%s\nbefore:\n%s", now, s.before)
	}
}
