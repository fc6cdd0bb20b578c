package archive

import (
	"context"

	"imagemanager.internal/internal/archive/fstree"
)

// walkFrom follows a link in the tree as it is so far.
func (b *treeBuilder) walkFrom(ctx context.Context, link fstree.ID) error {
	if b.walker == nil {
		b.walker = &linkWalker{tree: b.tree, steps: &b.budget.steps}
	}
	b.walker.root = b.rootOf(link)
	return b.walker.follow(ctx, link)
}

// rootOf returns the root for the links of a node: in an archive without layers, rootfs/
// for those below it.
func (b *treeBuilder) rootOf(i fstree.ID) fstree.ID {
	if dir := b.tree.Child(fstree.Root, "rootfs"); b.layer == 0 && b.tree.Within(dir, i) {
		return dir
	}
	return fstree.Root
}
