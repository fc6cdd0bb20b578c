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
			r := refuse(Duplicate, "the name is there twice, first as a directory that is not empty")
			r.Remedy = "leave one of them out"
			return r
		}
	}
	from, to := b.tree.At(first).Kind, kinds[h.Type]
	b.decide(h, Duplicate, from.String(), to.String(), "the name is there twice, first as a %s", from)
	if b.ambiguous == nil {
		b.ambiguous = refuse(Duplicate, "the name is there twice, and the archive is an image: "+
			"tools differ in which one they read")
		b.ambiguous.locate(string(h.Name), h.Index, b.base+h.Offset)
	}
	return nil
}
