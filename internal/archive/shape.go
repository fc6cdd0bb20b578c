package archive

import "imagemanager.internal/internal/archive/fstree"

// Shape is the way an archive holds a root file system.
type Shape string

// The shapes.
const (
	Bundle Shape = "bundle" // everything is below rootfs/
	Flat   Shape = "flat"   // etc, usr and var at the top, as docker export writes them
	Docker Shape = "docker" // docker save: manifest.json and layers
	OCI    Shape = "oci"    // an OCI image layout
)

// detectShape detects the shape by the members of a directory, in any order. A root file
// system comes first: there manifest.json is a file like any other. Names alone prove
// nothing, so the documents are read later and must be valid.
//
// A rootfs/ without the layout is a directory like any other if the top has it: docker
// export of a container writes one that was a mount point.
func detectShape(t *fstree.Tree, at fstree.ID, layout []string) Shape {
	isDir := func(name string) bool {
		i, ok := t.Find(at, []byte(name))
		return ok && t.At(i).Kind == fstree.KindDir
	}
	isFile := func(name string) bool {
		i, ok := t.Find(at, []byte(name))
		return ok && t.At(t.Inode(i)).Kind == fstree.KindFile
	}
	switch {
	case isDir("rootfs") && (hasDirs(t, t.Child(at, "rootfs"), layout) || !hasDirs(t, at, layout)):
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
