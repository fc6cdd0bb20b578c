package archive

import (
	"context"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

// checkDuplicate judges an entry whose name is there already in the same tarball. Links
// to the file that it replaces keep that file, as with GNU tar, containerd and umoci.
func (b *treeBuilder) checkDuplicate(ctx context.Context, h *tarball.Header, first fstree.ID) error {
	switch b.tree.At(first).Kind {
	case fstree.KindSymlink:
		// Written by its name, a file would go where the link leads.
		if err := b.walkFrom(ctx, first); err != nil {
			return err
		}
		if b.walker.climbed && h.Type != tarball.Symlink {
			return refuse(OutsideRoot, "the name is there twice, first as a symbolic link to %q",
				fstree.TruncateName(b.tree.At(first).Link))
		}
	case fstree.KindDir:
		// In a layer it replaces what is below it, for all tools. In a plain archive GNU
		// tar refuses it.
		if b.layer == 0 && b.tree.HasChildren(first) {
			return refuse(Duplicate, "the name is there twice, first as a directory that is not empty")
		}
	}
	from, to := b.tree.At(first).Kind, kinds[h.Type]
	b.decide(h, Duplicate, from.String(), to.String(), "the name is there twice, first as a %s", from)
	b.markAmbiguous(h, Duplicate, "the name is there twice")
	return nil
}

// markAmbiguous notes a fault that matters if the archive turns out to hold an image:
// what a policy changes in a tree must not choose a document of an image.
func (b *treeBuilder) markAmbiguous(h *tarball.Header, reason Reason, fault string) {
	if b.ambiguous == nil && b.layer == 0 {
		b.ambiguous = refuse(reason, "%s, and tools differ in which member of the image they read", fault)
		b.ambiguous.locate(string(h.Name), h.Index, b.base+h.Offset)
	}
}
