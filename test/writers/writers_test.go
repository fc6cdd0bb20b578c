// Package writers has the tools that people use write archives, judges what they have
// written, and keeps the table of it on docs/images.md.
package writers

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
)

var policies = []archive.Policy{archive.Strict, archive.Distro, archive.Trusted}

// Every archive that a real tool writes gets the verdict on the page. An accepted one
// becomes the tree of GNU tar, or of umoci for images, but for the recorded adjustments.
// What strict takes, the others take as it is. One archive of each tool and shape is left
// for the daemon, with the digest that its tree must have.
func TestArchivesOfTools(t *testing.T) {
	keep := os.Getenv("CIM_WRITERS")
	if keep == "" {
		t.Skip("CIM_WRITERS does not name a directory; `make test-images` installs the tools and runs this")
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root makes device nodes and owners")
	}
	check(t, errors.Join(os.RemoveAll(keep), os.MkdirAll(keep, 0o755)))
	w, rows := newWorkshop(t), []row{}
	for _, tool := range writers() {
		r := row{writer: tool, version: version(t, tool.tool)}
		t.Run(tool.how, func(t *testing.T) {
			kept := filepath.Join(keep, strings.ReplaceAll(tool.tool+"-"+tool.shape, " ", "-"))
			if tool.tree != "" {
				r.full = w.judge(t, tool, tool.tree, kept)
				return
			}
			r.plain = w.judge(t, tool, plain, "")
			r.full = w.judge(t, tool, full, kept)
		})
		rows = append(rows, r)
	}
	if !t.Failed() {
		checkPage(t, rows)
	}
}

// judge has an archive written and judged by every policy. If keep is given, the archive
// is kept at that path for the daemon, unless there is one.
func (w *workshop) judge(t *testing.T, tool writer, tree, keep string) verdicts {
	t.Helper()
	f, err := os.Open(w.write(t, tool, tree))
	check(t, err)
	defer f.Close()
	info, err := f.Stat()
	check(t, err)
	found, reference := verdicts{}, ""
	for _, policy := range policies {
		plan, err := archive.Check(t.Context(), f, info.Size(), archive.Options{Policy: policy})
		var r *archive.Rejection
		if errors.As(err, &r) {
			t.Logf("%s tree, %s: %v", tree, policy, err)
			found[policy] = verdict{refused: r.Reason}
			continue
		}
		check(t, err)
		found[policy] = verdict{adjusted: plan.AdjustedBy}
		if string(plan.Shape) != tool.shape {
			t.Errorf("%s tree: taken as %s, not as %s", tree, plan.Shape, tool.shape)
		}
		if reference == "" {
			reference = w.reference(t, f.Name(), plan.Shape)
		}
		got := written(t, f, plan)
		digest := got.Digest()
		compare(t, reference, plan, got)
		if policy == archive.Distro && keep != "" {
			keepFor(t, keep, f.Name(), digest)
		}
	}
	found.check(t)
	return found
}

// written returns the tree that the product makes of an archive.
func written(t *testing.T, f *os.File, plan *archive.Plan) *fstree.Inventory {
	t.Helper()
	dir := t.TempDir()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	_, err = extract.Write(t.Context(), f, plan, root, nil)
	check(t, err)
	return readTree(t, dir)
}

// keepFor keeps an archive and its digest, unless there is one.
func keepFor(t *testing.T, keep, path, digest string) {
	t.Helper()
	if _, err := os.Stat(keep + ".tar"); err == nil {
		return
	}
	from, err := os.Open(path)
	check(t, err)
	defer from.Close()
	to, err := os.Create(keep + ".tar")
	check(t, err)
	_, err = io.Copy(to, from)
	check(t, errors.Join(err, to.Close(), os.WriteFile(keep+".digest", []byte(digest), 0o600)))
}
