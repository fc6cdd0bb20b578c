package archive

import "fmt"

// Policy is how the rules are applied to what real images contain and the specification
// forbids.
type Policy string

const (
	// Strict is the specification to the letter. It refuses most distributions: they have
	// absolute links and setuid programs.
	Strict Policy = "strict"
	// Distro takes real distributions: absolute links are rewritten to the equivalent
	// relative ones, special bits and privileged attributes stripped, device nodes
	// skipped, each with an Adjustment.
	Distro Policy = "distro"
	// Trusted is for images of one's own: absolute links, special bits and file
	// capabilities are kept. Whatever could reach out of the tree, or be seen differently
	// by another reader, is refused as ever.
	Trusted Policy = "trusted"
)

// ParsePolicy reads a policy's name; an empty one means Strict.
func ParsePolicy(name string) (Policy, error) {
	switch p := Policy(name); p {
	case "":
		return Strict, nil
	case Strict, Distro, Trusted:
		return p, nil
	}
	return "", fmt.Errorf("policy %q is not %s, %s or %s", name, Strict, Distro, Trusted)
}

// Limits bound what an archive may declare. All are checked from headers, before anything
// is written.
type Limits struct {
	ImageBytes    int64 // of the archive, and of the sum of its files
	FileBytes     int64 // of one file
	Entries       int   // including directories that are only implied, and entries that an upper layer hides
	PathBytes     int   // of one path, and of a link's target
	Depth         int   // components of a path
	RecordBytes   int64 // of the extended headers of one entry
	TextBytes     int64 // of all extended headers
	XattrBytes    int64 // that the attributes of one file take in an ext4 block
	Layers        int   // of one image
	TreeBytes     int64 // of all names, link targets and attributes
	ManifestBytes int64 // of one JSON document of an image
	DocumentBytes int64 // of all JSON documents of an image that are read
	Descriptors   int   // things that an image's indexes and manifests name
}

// DefaultLimits are those of the specification (SC-2), and of ext4 where it has none.
func DefaultLimits() Limits {
	return Limits{
		ImageBytes: 10 << 30, FileBytes: 1 << 30, Entries: 100_000, PathBytes: 4095, Depth: 128,
		RecordBytes: 64 << 10, TextBytes: 16 << 20, XattrBytes: 4000, Layers: 128,
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
	orInt64(&l.TextBytes, d.TextBytes)
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

// budget is what has been declared so far, over all layers.
type budget struct {
	limits  Limits
	entries int
	bytes   int64
	text    int64
}

func newBudget(l Limits) *budget { return &budget{limits: l} }

// entry counts one entry with the bytes of its file.
func (b *budget) entry(size int64) error {
	if b.entries++; b.entries > b.limits.Entries {
		return refuse(TooManyEntries, "more than %d entries", b.limits.Entries)
	}
	if size > b.limits.ImageBytes-b.bytes {
		return refuse(ImageTooBig, "files of more than %d bytes together", b.limits.ImageBytes)
	}
	b.bytes += size
	return nil
}

// checkTreeText refuses a tree whose texts would take too much memory.
func checkTreeText(t *tree, l Limits) error {
	if t.text > l.TreeBytes {
		return refuse(TreeLimit, "names, link targets and attributes of more than %d bytes together", l.TreeBytes)
	}
	return nil
}
