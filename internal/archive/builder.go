package archive

import (
	"bytes"
	"context"
	"errors"
	"io"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

var kinds = map[byte]fstree.Kind{
	tarball.Regular: fstree.KindFile, tarball.Directory: fstree.KindDir,
	tarball.Symlink: fstree.KindSymlink, tarball.Hardlink: fstree.KindHardlink,
	tarball.Char: fstree.KindDevice, tarball.Block: fstree.KindDevice, tarball.FIFO: fstree.KindFIFO,
}

// treeBuilder adds the entries of one tarball to a tree. A layer has a builder of its
// own, for the tree of all layers.
type treeBuilder struct {
	tree     *fstree.Tree
	walker   *linkWalker
	budget   *budget
	findings *findings
	layer    uint8        // from 1, lowest first; 0 for an archive without layers
	base     int64        // offset of the tarball in the archive
	parts    [][]byte     // kept to save allocations
	pending  *pendingLink // the first one

	ambiguous *Rejection // of the first entry that tools may read in two ways if it is a part of an image
}

// addEntries adds all entries. A refused one is left out, and the others are still added
// and judged: an attack is not to hide behind it. Only what bounds the work, or cannot be
// read, ends the reading. Rejections are recorded and not returned.
func (b *treeBuilder) addEntries(ctx context.Context, src io.ReaderAt, size int64) error {
	err := b.eachEntry(ctx, src, size, func(h *tarball.Header) error {
		if err := b.budget.countEntry(h.Size); err != nil {
			return b.locate(err, h)
		}
		err := b.add(ctx, h)
		if r := asRejection(err); r != nil {
			b.reject(r, h)
		} else if err != nil {
			return err
		}
		return b.locate(checkTreeText(b.tree, b.budget.limits), h)
	})
	for _, err := range []error{b.end(err), b.checkPendingLinks()} {
		if r := asRejection(err); r != nil {
			b.record(r)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// end returns the error that ended the reading, if the tarball has to be refused for it.
func (b *treeBuilder) end(err error) error {
	err = b.endLayer(err)
	if r := asRejection(err); r != nil && r.unterminated && b.layer > 0 {
		return err // nothing is missing: the layer's digest has been verified
	}
	return b.findings.endAt(err)
}

// eachEntry calls do for the entries in order.
func (b *treeBuilder) eachEntry(ctx context.Context, src io.ReaderAt, size int64,
	do func(*tarball.Header) error,
) error {
	r := tarball.NewReader(io.NewSectionReader(src, b.base, size), size, b.budget.limits.RecordBytes)
	for n := 0; ; n++ {
		h, err := r.Next(ctx)
		switch {
		case errors.Is(err, io.EOF) && n == 0 && b.layer == 0:
			return refuse(EmptyArchive, "the archive has no entries")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return rejectFraming(err, b.base)
		}
		if err := do(h); err != nil {
			return err
		}
	}
}

// rejectFraming turns a defect of the tarball's headers into a rejection. Other errors it
// returns unchanged.
func rejectFraming(err error, base int64) error {
	var e *tarball.Error
	if !errors.As(err, &e) {
		return err
	}
	r := refuse(Reason(e.Code), "%s", e.Detail)
	r.locate(e.Name, e.Index, base+e.Offset)
	r.unterminated = e.Unterminated
	return r
}

// locate adds the entry to a rejection.
func (b *treeBuilder) locate(err error, h *tarball.Header) error {
	if r := asRejection(err); r != nil {
		r.locate(string(h.Name), h.Index, b.base+h.Offset)
	}
	return err
}

// decide applies a rule to an entry. It records the rejection or the adjustment. In both
// cases the caller changes the entry and goes on: an entry refused by one policy is put
// where another one puts it, so what follows is judged in the same tree.
func (b *treeBuilder) decide(h *tarball.Header, reason Reason, from, to, format string, args ...any) {
	rule := byReason[reason]
	if rule.For(b.findings.policy) != Reject {
		b.findings.adjust(reason, func() string { return string(h.Name) }, from, to)
		return
	}
	r := refuse(reason, format, args...)
	r.Remedy = remedy(rule, b.findings.policy)
	b.reject(r, h)
}

// reject records a rejection of an entry.
func (b *treeBuilder) reject(r *Rejection, h *tarball.Header) {
	r.locate(string(h.Name), h.Index, b.base+h.Offset)
	b.record(r)
}

// record records a rejection, and adds the layer to it.
func (b *treeBuilder) record(r *Rejection) {
	if b.layer > 0 {
		r.inLayer(int(b.layer))
	}
	b.findings.reject(r)
}

// add adds an entry to the tree. It refuses what no policy accepts. The rest is judged in
// the finished tree.
func (b *treeBuilder) add(ctx context.Context, h *tarball.Header) error {
	name := b.relativeName(h)
	parts, err := splitName(b.parts[:0], name, b.budget.limits)
	if err != nil {
		return err
	}
	b.parts = parts
	if len(parts) == 0 {
		if h.Type != tarball.Directory {
			return refuse(RootNotDir, "the root itself is not a directory here")
		}
		b.setAttributes(fstree.Root, h)
		return nil
	}
	if b.layer > 0 && isWhiteout(parts[len(parts)-1]) {
		return b.checkWhiteout(h, parts)
	}
	dir, err := b.makeParents(ctx, h, parts)
	if err != nil {
		return err
	}
	switch h.Type {
	case tarball.Symlink:
		if err := checkTarget(h.Linkname, b.budget.limits); err != nil {
			return err
		}
	case tarball.Hardlink:
		return b.addHardlink(ctx, h, parts, dir)
	}
	i, err := b.claimName(ctx, h, dir, parts[len(parts)-1])
	if err != nil {
		return err
	}
	b.setAttributes(i, h)
	return nil
}

// claimName returns the node for an entry: a new one, or a directory that is there
// already. The last entry with a name replaces those before it.
func (b *treeBuilder) claimName(ctx context.Context, h *tarball.Header, dir fstree.ID, name []byte) (fstree.ID, error) {
	t, k := b.tree, kinds[h.Type]
	if i, ok := t.Find(dir, name); ok {
		old := t.At(i)
		if old.Kind == fstree.KindDir && k == fstree.KindDir {
			return i, nil
		}
		if old.Layer == b.layer {
			if err := b.checkDuplicate(ctx, h, i); err != nil {
				return 0, err
			}
		}
		t.Remove(i)
	}
	return t.Insert(dir, name, k), nil
}

// setAttributes copies an entry's attributes to its node. A hard link has those of its
// target: from its own entry they would be a second way to change the target.
func (b *treeBuilder) setAttributes(i fstree.ID, h *tarball.Header) {
	n := b.tree.At(i)
	n.Layer, n.EntryLayer, n.Data, n.Index = b.layer, b.layer, b.base+h.DataOffset, int32(h.Index)
	if n.Kind == fstree.KindHardlink {
		return
	}
	n.Mode, n.UID, n.GID, n.Size = uint16(h.Mode), uint32(h.UID), uint32(h.GID), h.Size
	n.Sec, n.Nsec = h.ModTime.Sec, h.ModTime.Nsec
	switch {
	case n.Kind == fstree.KindSymlink:
		n.Mode = 0o777
		b.tree.SetLink(i, string(h.Linkname))
	case b.layer > 0 && h.Type == tarball.Char && h.Device == [2]int64{}:
		n.Kind = fstree.KindOverlay
	}
	b.tree.SetXattrs(i, cloneXattrs(h.Xattrs))
}

// cloneXattrs copies attributes out of the reader's buffer.
func cloneXattrs(from []tarball.Xattr) []fstree.Xattr {
	if len(from) == 0 {
		return nil
	}
	list := make([]fstree.Xattr, 0, len(from))
	for _, x := range from {
		list = append(list, fstree.Xattr{Name: string(x.Name), Value: bytes.Clone(x.Value)})
	}
	return list
}

// lookup finds the node with a path. It follows no symbolic link.
func lookup(t *fstree.Tree, parts [][]byte) (fstree.ID, bool, error) {
	at := fstree.Root
	for _, part := range parts {
		if t.At(at).Kind == fstree.KindSymlink {
			return 0, false, refuseBelow(t, at, "and it is not followed here")
		}
		next, ok := t.Find(at, part)
		if !ok {
			return 0, false, nil
		}
		at = next
	}
	return at, true, nil
}

// shownPath returns a node's path for a message.
func shownPath(t *fstree.Tree, i fstree.ID) string {
	return fstree.TruncateName(t.Path(fstree.Root, i))
}
