package writers

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
)

// reference extracts an accepted archive with GNU tar, or with umoci if it is an image.
// It returns the directory with rootfs/.
func (w *workshop) reference(t *testing.T, path string, shape archive.Shape) string {
	t.Helper()
	dir := t.TempDir()
	const untar = `tar --extract --file="$ARCHIVE" --directory="$INTO" --preserve-permissions --numeric-owner \
--same-owner --xattrs --xattrs-include='*' --delay-directory-restore`
	const unpack = `skopeo copy -q "$FORM-archive:$ARCHIVE" "oci:$INTO/layout:image"
umoci raw unpack --image "$INTO/layout:image" "$INTO/rootfs"
rm -r "$INTO/layout"`
	switch shape {
	case archive.Flat:
		into := filepath.Join(dir, "rootfs")
		check(t, os.Mkdir(into, 0o755))
		w.run(t, plain, untar, "ARCHIVE="+path, "INTO="+into)
	case archive.Bundle:
		w.run(t, plain, untar, "ARCHIVE="+path, "INTO="+dir)
	case archive.Docker, archive.OCI:
		w.run(t, plain, unpack, "ARCHIVE="+path, "INTO="+dir, "FORM="+string(shape))
	}
	return dir
}

// compare compares what the product has written with a tree of reference, in which the
// recorded adjustments are made.
func compare(t *testing.T, reference string, plan *archive.Plan, got *fstree.Inventory) {
	t.Helper()
	want := readTree(t, reference)
	if plan.Adjusted != len(plan.Adjustments) {
		t.Fatalf("%d adjustments, %d of them recorded", plan.Adjusted, len(plan.Adjustments))
	}
	for _, a := range plan.Adjustments {
		adjust(t, want, a)
	}
	for _, r := range want.Records { // a file was adjusted by its first name
		if first := r.First; first != nil {
			r.Mode, r.Xattrs, r.Sec, r.Nsec = first.Mode, first.Xattrs, first.Sec, first.Nsec
		}
	}
	// A root without an entry is from 1970 here, and new where others make it.
	_, theirs := find(want, "rootfs")
	_, ours := find(got, "rootfs")
	if theirs != nil && ours != nil && ours.Sec == 0 {
		theirs.Sec, theirs.Nsec = ours.Sec, ours.Nsec
	}
	if i, config := find(got, "image.json"); config != nil { // tar and umoci write none
		got.Records = slices.Delete(got.Records, i, i+1)
	}
	for _, line := range want.Diff(got, 10) {
		t.Errorf("%s: %s", plan.Policy, line)
	}
}

// readTree returns the inventory of a directory.
func readTree(t *testing.T, dir string) *fstree.Inventory {
	t.Helper()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	tree, err := extract.ReadBack(t.Context(), root)
	check(t, err)
	return tree
}

// find returns the record of a path and its index, or nil and -1.
func find(tree *fstree.Inventory, path string) (int, *fstree.Record) {
	i := slices.IndexFunc(tree.Records, func(r *fstree.Record) bool { return r.Path() == path })
	if i < 0 {
		return i, nil
	}
	return i, tree.Records[i]
}

// sameForAll are the rules whose adjustments every reader makes.
var sameForAll = []archive.Reason{
	archive.AbsoluteName, archive.HardlinkAbsolute, archive.Duplicate, archive.ThroughLink,
}

// adjust makes one adjustment in a tree.
func adjust(t *testing.T, tree *fstree.Inventory, a archive.Adjustment) {
	t.Helper()
	if slices.Contains(sameForAll, a.Reason) {
		return
	}
	i, r := find(tree, filepath.Join("rootfs", a.Entry))
	if r == nil {
		t.Fatalf("%s of %q, which the tree of reference does not have", a.Reason, a.Entry)
	}
	r = cmp.Or(r.First, r)
	switch a.Reason {
	case archive.DeviceNode, archive.FIFO:
		tree.Records = slices.Delete(tree.Records, i, i+1)
	case archive.SymlinkAbsolute, archive.SymlinkEscapes:
		r.Target = a.To
	case archive.SetuidSetgid, archive.SpecialBits:
		mode, err := strconv.ParseUint(a.To, 8, 16)
		check(t, err)
		r.Mode = uint16(mode)
	case archive.XattrPrivileged, archive.XattrInvalid:
		r.Xattrs = slices.DeleteFunc(r.Xattrs, func(x fstree.Xattr) bool { return x.Name == a.From })
	default:
		t.Fatalf("an adjustment that this test cannot make: %+v", a)
	}
}
