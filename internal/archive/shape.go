package archive

import (
	"fmt"
	"strings"
)

// Shape is how an archive holds a root file system.
type Shape string

// The shapes.
const (
	Bundle Shape = "bundle" // everything below rootfs/
	Flat   Shape = "flat"   // etc, usr, var at the top, as docker export writes it
	Docker Shape = "docker" // docker save: manifest.json and layers
	OCI    Shape = "oci"    // an OCI image layout
)

// recognise tells the shape from the members, whatever their order. A root file system
// comes first: there manifest.json is a file like any other. Names alone are no proof:
// the documents they name are read and must be what they should be.
func recognise(t *tree) Shape {
	isDir := func(name string) bool {
		i, ok := t.find(rootID, []byte(name))
		return ok && t.at(i).kind == kindDir
	}
	isFile := func(name string) bool {
		i, ok := t.find(rootID, []byte(name))
		return ok && t.at(t.inode(i)).kind == kindFile
	}
	switch {
	case isDir("rootfs"):
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

// maxBeside is how many names beside rootfs/ are told.
const maxBeside = 5

// layout checks that the root file system is one: the wanted directories are there, and
// are directories.
func layout(t *tree, root id, shape Shape, want []string) error {
	var missing []string
	for _, name := range want {
		if !hasDir(t, root, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return refuse(Layout, "not a root file system: directories missing: %s", strings.Join(missing, ", "))
	}
	if shape != Bundle {
		return nil
	}
	var beside []string
	for i := range t.children(rootID) {
		if i != root && len(beside) < maxBeside {
			beside = append(beside, fmt.Sprintf("%q", shorten(t.at(i).name)))
		}
	}
	if len(beside) > 0 {
		return refuse(Layout, "beside rootfs/ there is more: %s", strings.Join(beside, ", "))
	}
	return nil
}

// hasDir reports whether there is a directory at a path, with no symbolic link on the
// way.
func hasDir(t *tree, at id, path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		next, ok := t.find(at, []byte(part))
		if !ok || t.at(next).kind != kindDir {
			return false
		}
		at = next
	}
	return true
}
