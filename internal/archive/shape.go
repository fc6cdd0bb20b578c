package archive

import (
	"fmt"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// Shape is the way an archive holds a root file system.
type Shape string

// The shapes.
const (
	Bundle Shape = "bundle" // everything is below rootfs/
	Flat   Shape = "flat"   // etc, usr and var at the top, as docker export writes them
	Docker Shape = "docker" // docker save: manifest.json and layers
	OCI    Shape = "oci"    // an OCI image layout
)

// detectShape detects the shape by the members, in any order. A root file system comes
// first: there manifest.json is a file like any other. Names alone prove nothing, so the
// documents are read later and must be valid.
//
// A rootfs/ without the layout is a directory like any other if the top has it: docker
// export of a container writes one that was a mount point.
func detectShape(t *fstree.Tree, layout []string) Shape {
	isDir := func(name string) bool {
		i, ok := t.Find(fstree.Root, []byte(name))
		return ok && t.At(i).Kind == fstree.KindDir
	}
	isFile := func(name string) bool {
		i, ok := t.Find(fstree.Root, []byte(name))
		return ok && t.At(t.Inode(i)).Kind == fstree.KindFile
	}
	switch {
	case isDir("rootfs") && (hasDirs(t, t.Child(fstree.Root, "rootfs"), layout) || !hasDirs(t, fstree.Root, layout)):
		return Bundle
	case isDir("etc") || isDir("usr") || isDir("var"):
		return Flat
	case isFile("manifest.json") || isFile("repositories"):
		return Docker
	case isFile("oci-layout") && isFile("index.json"):
		return OCI
	}
	return Flat
}

// maxBeside is how many names beside rootfs/ a message lists.
const maxBeside = 5

// checkLayout refuses a tree without the wanted directories, and a bundle with anything
// beside rootfs/.
func checkLayout(t *fstree.Tree, root fstree.ID, shape Shape, want []string) error {
	if missing := missingDirs(t, root, want); len(missing) > 0 {
		return refuse(Layout, "not a root file system: directories missing: %s", strings.Join(missing, ", "))
	}
	if shape != Bundle {
		return nil
	}
	var beside []string
	for i := range t.Children(fstree.Root) {
		if i != root && len(beside) < maxBeside {
			beside = append(beside, fmt.Sprintf("%q", fstree.TruncateName(t.At(i).Name)))
		}
	}
	if len(beside) > 0 {
		return refuse(Layout, "beside rootfs/ there is more: %s", strings.Join(beside, ", "))
	}
	return nil
}

// missingDirs returns the wanted directories that are not there.
func missingDirs(t *fstree.Tree, root fstree.ID, want []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(name string) bool { return hasDir(t, root, name) })
}

func hasDirs(t *fstree.Tree, root fstree.ID, want []string) bool {
	return len(missingDirs(t, root, want)) == 0
}

// hasDir reports whether a path is a directory. It follows no symbolic link.
func hasDir(t *fstree.Tree, at fstree.ID, path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		next, ok := t.Find(at, []byte(part))
		if !ok || t.At(next).Kind != fstree.KindDir {
			return false
		}
		at = next
	}
	return true
}
