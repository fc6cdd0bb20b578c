package archive

import (
	"context"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

// makeParents finds the directory of an entry. It makes missing directories, owned by
// root and of mode 0755, as every extractor does. Below a symbolic link the entry is
// placed where the link leads in the tree so far: containerd and umoci do so.
func (b *treeBuilder) makeParents(ctx context.Context, h *tarball.Header, parts [][]byte) (fstree.ID, error) {
	dir, link := fstree.Root, fstree.Root
	for k, part := range parts[:len(parts)-1] {
		i, err := b.makeDir(dir, part)
		if err != nil {
			return 0, err
		}
		switch n := b.tree.At(i); n.Kind {
		case fstree.KindDir:
			n.Layer = b.layer
			dir = i
		case fstree.KindSymlink:
			link = i
			if dir, err = b.followParent(ctx, link, len(parts)-k-1); err != nil {
				return 0, err
			}
			b.markLayer(dir)
		default:
			return 0, refuse(ParentNotDir, "it lies below %q, which is not a directory", shownPath(b.tree, i))
		}
	}
	if link == fstree.Root {
		return dir, nil
	}
	return dir, b.place(h, link, joinPath(b.tree.Path(fstree.Root, dir), string(parts[len(parts)-1])), "it")
}

// makeDir returns the entry of a directory with this name, and makes it as a directory if
// it is missing.
func (b *treeBuilder) makeDir(dir fstree.ID, name []byte) (fstree.ID, error) {
	if i, ok := b.tree.Find(dir, name); ok {
		return i, nil
	}
	if err := b.budget.countEntry(0); err != nil {
		return 0, err
	}
	i := b.tree.Insert(dir, name, fstree.KindDir)
	b.tree.At(i).Mode = 0o755
	return i, nil
}

// markLayer marks a directory, and those above it, as having an entry of this layer.
func (b *treeBuilder) markLayer(dir fstree.ID) {
	for ; dir != fstree.Root; dir = b.tree.At(dir).Parent {
		b.tree.At(dir).Layer = b.layer
	}
}

// followParent returns the directory to which a symbolic link leads, for a path that goes
// on below it with so many components.
func (b *treeBuilder) followParent(ctx context.Context, link fstree.ID, more int) (fstree.ID, error) {
	if err := b.walkFrom(ctx, link); err != nil {
		return 0, err
	}
	w := b.walker
	switch {
	case b.tree.At(link).Layer == b.layer && (w.climbed || w.absolute && b.layer == 0):
		// Nobody lists a tree like this. A link of a lower layer is another matter:
		// whoever made this layer may not know of it, and tools for layers follow it in
		// the root.
		return 0, refuse(OutsideRoot, "below the symbolic link %q to %q", shownPath(b.tree, link),
			fstree.TruncateName(b.tree.At(link).Link))
	case w.missing > 0 || w.followed > maxFollow:
		return 0, refuseBelow(b.tree, link, "which leads to no directory in the root")
	}
	if depth := b.tree.Depth(w.at) + more; depth > b.budget.limits.Depth {
		return 0, refuse(TooDeep, "where the link leads, it has %d components, the limit is %d", depth,
			b.budget.limits.Depth)
	}
	return w.at, nil
}

// place records that an entry, or its target, is taken for another path.
func (b *treeBuilder) place(h *tarball.Header, link fstree.ID, path, what string) error {
	if len(path) > b.budget.limits.PathBytes {
		return refuse(PathTooLong, "where the link leads, the path has %d bytes, the limit is %d", len(path),
			b.budget.limits.PathBytes)
	}
	b.markAmbiguous(h, ThroughLink, "it lies below a symbolic link")
	b.decide(h, ThroughLink, string(h.Name), path, "%s lies below the symbolic link %q", what, shownPath(b.tree, link))
	return nil
}

// refuseBelow refuses a path below a symbolic link that cannot be followed.
func refuseBelow(t *fstree.Tree, link fstree.ID, why string) *Rejection {
	return refuse(ThroughLink, "below the symbolic link %q, %s", shownPath(t, link), why)
}

// joinPath joins a directory's path and a name.
func joinPath(dir, name string) string { return strings.TrimPrefix(dir+"/"+name, "/") }

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

// findTarget finds a hard link's target. Like a parent, a symbolic link on the way is
// followed; the target itself may be one.
func (b *treeBuilder) findTarget(ctx context.Context, h *tarball.Header, parts [][]byte) (fstree.ID, bool, error) {
	at, link := fstree.Root, fstree.Root
	for k, part := range parts {
		if b.tree.At(at).Kind == fstree.KindSymlink {
			var err error
			link = at
			if at, err = b.followParent(ctx, link, len(parts)-k); err != nil {
				return 0, false, err
			}
		}
		next, ok := b.tree.Find(at, part)
		if !ok {
			return 0, false, nil
		}
		at = next
	}
	if link == fstree.Root {
		return at, true, nil
	}
	return at, true, b.place(h, link, b.tree.Path(fstree.Root, at), "the target")
}
