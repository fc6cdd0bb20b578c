package archive

import (
	"bytes"
	"context"
	"slices"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

// maxLinks is how many names a file may have in ext4 (EXT4_LINK_MAX).
const maxLinks = 65_000

// pendingLink is a hard link without a target so far. The archive is refused in any case;
// its end shows whether the target comes later or is missing.
type pendingLink struct {
	entry  string
	index  int
	offset int64
	target string // relative to the root
	host   bool   // it was absolute: somewhere else it may name a file of the host
}

// addHardlink adds a hard link to a directory. Its target is an earlier entry of this
// tarball, or of a lower layer.
func (b *treeBuilder) addHardlink(ctx context.Context, h *tarball.Header, parts [][]byte, dir fstree.ID) error {
	target, pending, err := b.hardlinkTarget(ctx, h, parts)
	if err != nil {
		return err
	}
	i, err := b.claimName(ctx, h, dir, parts[len(parts)-1])
	if err != nil {
		return err
	}
	b.setAttributes(i, h)
	switch {
	case pending != nil:
		b.tree.At(i).Kind = fstree.KindSkipped
		if b.pending == nil || pending.host && !b.pending.host {
			b.pending = pending
		}
		return nil
	case b.tree.At(target).Gone:
		b.tree.At(i).Kind = fstree.KindSkipped
		return refuse(HardlinkMissing, "it replaces its own target %q, or a directory above it",
			fstree.TruncateName(string(h.Linkname)))
	}
	return b.linkTo(i, b.tree.Inode(target))
}

// hardlinkTarget returns the name that a hard link is another one for. Without one it
// returns a pendingLink.
func (b *treeBuilder) hardlinkTarget(ctx context.Context, h *tarball.Header, own [][]byte) (fstree.ID, *pendingLink,
	error,
) {
	link, absolute := trimSlashes(h.Linkname)
	if absolute {
		b.decide(h, HardlinkAbsolute, string(h.Linkname), string(link), "the target %q is absolute",
			fstree.TruncateName(string(h.Linkname)))
	}
	parts, err := splitTarget(link, b.budget.limits)
	if err != nil {
		return 0, nil, err
	}
	if slices.EqualFunc(parts, own, bytes.Equal) {
		return 0, nil, refuse(HardlinkSelf, "a hard link to itself")
	}
	target, found, err := b.findTarget(ctx, h, parts)
	switch {
	case err != nil:
		return 0, nil, err
	case !found:
		return 0, &pendingLink{string(h.Name), h.Index, b.base + h.Offset, string(link), absolute}, nil
	case b.tree.At(target).Kind == fstree.KindDir:
		return 0, nil, refuse(HardlinkToDir, "a hard link to the directory %q",
			fstree.TruncateName(string(h.Linkname)))
	}
	return target, nil, nil
}

// splitTarget checks a hard link's target as strictly as a name.
func splitTarget(link []byte, l Limits) ([][]byte, error) {
	if len(link) == 0 {
		return nil, refuse(HardlinkMissing, "a hard link to nothing")
	}
	parts, err := splitName(nil, link, l)
	if r := asRejection(err); r != nil && r.Reason == DotdotName {
		return nil, refuse(HardlinkDotdot, `the target %q has a ".." component`, fstree.TruncateName(string(link)))
	}
	return parts, err
}

// linkTo makes a node one more name of a file. A second name of a symbolic link becomes a
// link of its own with the same target and is judged by itself: in another directory the
// same target may lead elsewhere.
func (b *treeBuilder) linkTo(i, target fstree.ID) error {
	n, to := b.tree.At(i), b.tree.At(target)
	if to.Kind == fstree.KindSymlink {
		n.Kind, n.Mode, n.UID, n.GID, n.Sec, n.Nsec = fstree.KindSymlink, to.Mode, to.UID, to.GID, to.Sec, to.Nsec
		b.tree.SetLink(i, to.Link)
		return nil
	}
	n.Target = target
	if to.Names++; to.Names > maxLinks {
		return refuse(HardlinkLimit, "more than %d names for one file", maxLinks)
	}
	return nil
}

// checkPendingLinks refuses an archive in which a hard link had no target. Of several the
// first with an absolute target counts, or else the first.
func (b *treeBuilder) checkPendingLinks() error {
	p := b.pending
	if p == nil {
		return nil
	}
	parts, err := splitTarget([]byte(p.target), b.budget.limits)
	if err != nil {
		return err
	}
	r := refuse(HardlinkMissing, "the target %q is not in the archive", fstree.TruncateName(p.target))
	if _, found, err := lookup(b.tree, parts); err == nil && found {
		r = refuse(HardlinkForward, "the target comes later in the archive")
	} else if p.host {
		r = refuse(OutsideRoot, "the absolute target %q is not in the archive", "/"+fstree.TruncateName(p.target))
	}
	r.locate(p.entry, p.index, p.offset)
	return r
}
