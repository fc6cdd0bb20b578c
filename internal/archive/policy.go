package archive

import (
	"fmt"

	"imagemanager.internal/internal/archive/fstree"
)

// Policy is the way to treat entries of real images that the specification forbids.
type Policy string

const (
	// Strict follows the specification to the letter. It refuses most distributions, as
	// they have absolute links and setuid programs.
	Strict Policy = "strict"
	// Distro accepts real distributions. It rewrites absolute names, and absolute or
	// climbing links, to the equivalent relative ones, strips special bits and privileged
	// attributes, and skips device nodes and named pipes. Each change leaves an
	// Adjustment.
	Distro Policy = "distro"
	// Trusted is for your own images. It keeps absolute links, special bits and file
	// capabilities. It still refuses what could lead out of the tree, and what another
	// reader could understand differently.
	Trusted Policy = "trusted"
)

// ParsePolicy parses the name of a policy. The empty name stands for Strict.
func ParsePolicy(name string) (Policy, error) {
	switch p := Policy(name); p {
	case "":
		return Strict, nil
	case Strict, Distro, Trusted:
		return p, nil
	}
	return "", fmt.Errorf("policy %q is not %s, %s or %s", name, Strict, Distro, Trusted)
}

// KeepsSetuid reports whether the policy keeps setuid and setgid bits, and with them file
// capabilities. A writer needs more rights for them.
func (p Policy) KeepsSetuid() bool { return byReason[SetuidSetgid].For(p) == Keep }

// Limits bound what an archive may declare. All are checked before anything is written.
type Limits struct {
	ImageBytes    int64 // of the archive, and of the sum of its files
	FileBytes     int64 // of one file
	Entries       int   // including implied directories, and entries hidden by an upper layer
	PathBytes     int   // of one path, and of a link's target
	Depth         int   // components of a path
	RecordBytes   int64 // of the extended headers of one entry; there is no limit of them together
	XattrBytes    int64 // of the attributes of one file in their ext4 block
	Layers        int   // of one image
	TreeBytes     int64 // of all names, link targets and attributes
	ManifestBytes int64 // of one JSON document of an image
	DocumentBytes int64 // of all JSON documents that are read of an image
	Descriptors   int   // in an image's indexes and manifests
}

// DefaultLimits returns the limits of the specification (SC-2). Where it has none, they
// are those of ext4 or bound the memory of Check.
func DefaultLimits() Limits {
	return Limits{
		ImageBytes: 10 << 30, FileBytes: 1 << 30, Entries: 100_000, PathBytes: 4095, Depth: 128,
		RecordBytes: 64 << 10, XattrBytes: 4000, Layers: 128,
		TreeBytes: 20 << 20, ManifestBytes: 4 << 20, DocumentBytes: 16 << 20, Descriptors: 10_000,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orInt64 := func(n *int64, otherwise int64) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	orInt := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	orInt64(&l.ImageBytes, d.ImageBytes)
	orInt64(&l.FileBytes, d.FileBytes)
	orInt64(&l.RecordBytes, d.RecordBytes)
	orInt64(&l.XattrBytes, d.XattrBytes)
	orInt64(&l.TreeBytes, d.TreeBytes)
	orInt64(&l.ManifestBytes, d.ManifestBytes)
	orInt64(&l.DocumentBytes, d.DocumentBytes)
	orInt(&l.Entries, d.Entries)
	orInt(&l.PathBytes, d.PathBytes)
	orInt(&l.Depth, d.Depth)
	orInt(&l.Layers, d.Layers)
	orInt(&l.Descriptors, d.Descriptors)
	return l
}

// budget counts what has been declared, in all layers together.
type budget struct {
	limits  Limits
	entries int
	bytes   int64 // of all files
	steps   int   // taken along symbolic links
}

func newBudget(l Limits) *budget { return &budget{limits: l} }

// countEntry counts an entry and the bytes of its file.
func (b *budget) countEntry(size int64) error {
	if b.entries++; b.entries > b.limits.Entries {
		return refuse(TooManyEntries, "more than %d entries", b.limits.Entries)
	}
	if size > b.limits.ImageBytes-b.bytes {
		return refuse(ImageTooBig, "files of more than %d bytes together", b.limits.ImageBytes)
	}
	b.bytes += size
	return nil
}

// checkTreeText refuses a tree if its texts take too much memory.
func checkTreeText(t *fstree.Tree, l Limits) error {
	if t.Text() > l.TreeBytes {
		return refuse(TreeLimit, "names, link targets and attributes of more than %d bytes together", l.TreeBytes)
	}
	return nil
}
