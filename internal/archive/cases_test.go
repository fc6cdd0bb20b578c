package archive

import (
	"strings"
	"testing"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

var policies = []Policy{Strict, Distro, Trusted}

// Every archive of the list ends under every policy as the list says, with everything
// said that an operator needs.
func TestVerdicts(t *testing.T) {
	for _, c := range images.Cases() {
		for _, p := range policies {
			t.Run(c.Group+"/"+c.Name+"/"+string(p), func(t *testing.T) {
				plan, err := judgeBytes(t, c.Bytes, p)
				want := c.Outcome(string(p))
				if got := outcome(t, err); got != want {
					t.Fatalf("outcome %q, want %q: %v", got, want, err)
				}
				if err != nil {
					checkRejection(t, c, p, asRejection(err))
					return
				}
				checkPaths(t, c, plan)
				if string(plan.Shape) != c.Shape || plan.Policy != p {
					t.Errorf("shape %s under %s, want %s", plan.Shape, plan.Policy, c.Shape)
				}
				if p == Distro && (plan.Adjusted != c.Adjusted || len(plan.Adjustments) != c.Adjusted) {
					t.Errorf("%d adjustments, want %d: %+v", plan.Adjusted, c.Adjusted, plan.Adjustments)
				}
			})
		}
	}
}

// checkPaths compares the finished tree with the paths that it is to have, and not.
func checkPaths(t *testing.T, c images.Case, plan *Plan) {
	t.Helper()
	has, size := map[string]bool{}, int64(0)
	for _, r := range records(t, plan) {
		has[strings.TrimPrefix(r.Path(), "rootfs/")] = true
		if r.First == nil {
			size += r.Size
		}
	}
	if size != plan.Bytes {
		t.Errorf("%d bytes planned, the files have %d", plan.Bytes, size)
	}
	for _, want := range strings.Fields(c.Has) {
		path, absent := strings.CutPrefix(want, "!")
		if has[path] == absent {
			t.Errorf("%q is there: %t", path, has[path])
		}
	}
}

func checkRejection(t *testing.T, c images.Case, p Policy, r *Rejection) {
	t.Helper()
	text := r.Error()
	if r.Violation != c.Violation && c.Outcome(string(p)) == c.Strict {
		t.Errorf("violation %t, want %t: %s", r.Violation, c.Violation, text)
	}
	if !strings.Contains(text, c.Says) {
		t.Errorf("%q does not say %q", text, c.Says)
	}
	if (c.Group == "framing" || c.Group == "pax") && r.Reason != EmptyArchive && !strings.Contains(text, "at byte ") {
		t.Errorf("%q does not say where", text)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Errorf("the text has control characters: %q", text)
	}
	if len(r.Entry) > fstree.MaxShown || len(text) > 8*fstree.MaxShown {
		t.Errorf("a text of %d bytes", len(text))
	}
	if p == Strict && c.Distro == "" && !strings.Contains(text, "IMAGE_POLICY=distro") {
		t.Errorf("%q does not name the remedy", text)
	}
	if c.Group != "formats" && r.Reason != EmptyArchive && !strings.Contains(text, "; the archive was taken for ") {
		t.Errorf("%q does not say what the archive was taken for", text)
	}
	if r.Remedy == "" && !r.Violation {
		t.Errorf("%q has no remedy", text)
	}
	if p != Strict && strings.Contains(text, "IMAGE_POLICY") {
		t.Errorf("%q advises what does not help", text)
	}
}

// The list has an archive for every rule; those about numbers are in TestLimits.
func TestEveryRuleHasAnArchive(t *testing.T) {
	seen := map[string]bool{
		"image_too_big": true, "file_too_big": true, "too_many_entries": true, "symlink_maze": true,
		"hardlink_limit": true, "tree_limit": true,
	}
	cases := images.Cases()
	for _, c := range cases {
		seen[c.Strict], seen[c.Distro], seen[c.Trusted] = true, true, true
	}
	for _, r := range Rules() {
		if !seen[string(r.Reason)] {
			t.Errorf("no archive breaks %s", r.Reason)
		}
	}
	for _, c := range cases {
		if _, ok := byReason[Reason(c.Strict)]; !ok && c.Strict != "" {
			t.Errorf("%s: no rule has the code %q", c.Name, c.Strict)
		}
	}
	t.Logf("%d rules, %d archives", len(Rules()), len(cases))
}
