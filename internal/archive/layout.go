package archive

import (
	"fmt"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// titles say what an archive was taken for.
var titles = map[Shape]string{
	Bundle: "a bundle with rootfs/", Flat: "a plain root file system", Docker: "an archive of docker save",
	OCI: "an OCI image layout",
}

// bundles are kinds of directories with a root file system below rootfs/, by a file that
// lies beside it.
var bundles = map[string]string{"config.json": "an OCI runtime bundle", "metadata.yaml": "an LXD image"}

// checkLayout refuses a tree without the wanted directories, and a bundle with anything
// beside rootfs/.
func checkLayout(t *fstree.Tree, root fstree.ID, shape Shape, want []string) error {
	if !hasDirs(t, root, want) {
		return refuseLayout(t, root, shape, want)
	}
	if shape != Bundle {
		return nil
	}
	return checkBeside(t, root)
}

// hasDirs reports whether paths are directories. It follows no symbolic link.
func hasDirs(t *fstree.Tree, root fstree.ID, want []string) bool {
	for _, path := range want {
		if dirFault(t, root, path) != "" {
			return false
		}
	}
	return true
}

// dirFault says why a path is not a directory, or "" if it is one.
func dirFault(t *fstree.Tree, at fstree.ID, path string) string {
	for part := range strings.SplitSeq(path, "/") {
		next, ok := t.Find(at, []byte(part))
		if !ok {
			return missing
		}
		n := t.At(next)
		switch n.Kind {
		case fstree.KindDir:
		case fstree.KindSymlink:
			return fmt.Sprintf("%s is a symbolic link to %q", path, fstree.TruncateName(n.Link))
		default:
			return fmt.Sprintf("%s is a %s", path, n.Kind)
		}
		at = next
	}
	return ""
}

const missing = "missing"

// refuseLayout refuses a tree that is no root file system.
func refuseLayout(t *fstree.Tree, root fstree.ID, shape Shape, want []string) *Rejection {
	var absent, faults []string
	for _, path := range want {
		switch fault := dirFault(t, root, path); fault {
		case "":
		case missing:
			absent = append(absent, path)
		default:
			faults = append(faults, fault)
		}
	}
	if len(absent) > 0 {
		faults = append([]string{"directories missing: " + strings.Join(absent, ", ")}, faults...)
	}
	r := refuse(Layout, "not a root file system: %s", strings.Join(faults, "; "))
	r.Remedy = layoutRemedy(shape, want)
	if len(absent) == 0 {
		r.Remedy = "put the directory itself in its place"
	}
	if shape == Flat {
		describeInner(t, want, r)
	}
	return r
}

// layoutRemedy says where the wanted directories belong.
func layoutRemedy(shape Shape, want []string) string {
	names := strings.Join(want, ", ")
	switch shape {
	case Docker, OCI:
		return "the image needs the directories " + names
	case Bundle:
		return "put the directories " + names + " below rootfs/"
	}
	return "put the directories " + names + " at the top or below rootfs/, or upload an archive of docker save or an " +
		"OCI image layout"
}

// describeInner says what lies in the only directory at the top, if that is something.
func describeInner(t *fstree.Tree, want []string, r *Rejection) {
	var dir fstree.ID
	for i := range t.Children(fstree.Root) {
		if dir != fstree.Root || t.At(i).Kind != fstree.KindDir {
			return
		}
		dir = i
	}
	if dir == fstree.Root {
		return
	}
	shape := detectShape(t, dir, want)
	if shape == Flat && !hasDirs(t, dir, want) {
		return
	}
	r.Detail = fmt.Sprintf("everything lies in the directory %q; in it is %s", fstree.TruncateName(t.At(dir).Name),
		titles[shape])
	r.Remedy = "pack what is in the directory: `tar -cf OUT -C DIR .`, DIR being that directory"
}

// maxBeside is how many names beside rootfs/ a message lists.
const maxBeside = 5

// checkBeside refuses a bundle with anything beside rootfs/.
func checkBeside(t *fstree.Tree, root fstree.ID) error {
	var beside []string
	kind := titles[Bundle]
	for i := range t.Children(fstree.Root) {
		name := t.At(i).Name
		if i != root && len(beside) < maxBeside {
			beside = append(beside, fmt.Sprintf("%q", fstree.TruncateName(name)))
		}
		if k := bundles[name]; k != "" {
			kind = k
		}
	}
	if len(beside) == 0 {
		return nil
	}
	r := refuse(Layout, "it looks like %s; beside rootfs/ there is more: %s", kind, strings.Join(beside, ", "))
	r.Remedy = "pack rootfs/ alone: `tar -cf OUT -C DIR rootfs`, DIR being where it lies"
	return r
}
