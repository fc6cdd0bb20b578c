package archive

import (
	"bytes"
	"slices"

	"imagemanager.internal/internal/archive/tarball"
)

// maxLinks is how many names ext4 gives a file (EXT4_LINK_MAX).
const maxLinks = 65_000

var kinds = map[byte]kind{
	tarball.Regular: kindFile, tarball.Directory: kindDir, tarball.Symlink: kindSymlink, tarball.Hardlink: kindHardlink,
	tarball.Char: kindDevice, tarball.Block: kindDevice, tarball.FIFO: kindFIFO,
}

// xattrOverhead is about what an attribute takes beside its bytes; an archive may have
// hundreds of thousands.
const xattrOverhead = 64

// add puts an entry into the tree. It refuses what no policy accepts; the rest is judged
// when the tree is finished.
func (in *intake) add(h *tarball.Header) error {
	parts, err := splitName(in.parts[:0], h.Name, in.budget.limits)
	if err != nil {
		return err
	}
	in.parts = parts
	if len(parts) == 0 {
		if h.Type != tarball.Directory {
			return refuse(RootNotDir, "the root itself is no directory here")
		}
		in.set(rootID, h)
		return nil
	}
	name := parts[len(parts)-1]
	if in.layer > 0 && isWhiteout(name) {
		return in.whiteout(h, parts)
	}
	dir, err := in.parents(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	if h.Type == tarball.Symlink {
		if err := checkTarget(h.Linkname, in.budget.limits); err != nil {
			return err
		}
	}
	target, pending, err := in.hardlink(h, parts)
	if err != nil {
		return err
	}
	i, err := in.claim(dir, name, kinds[h.Type])
	if err != nil {
		return err
	}
	in.set(i, h)
	switch {
	case pending:
		in.wait(i, h)
	case h.Type == tarball.Hardlink:
		return in.link(i, target)
	}
	return nil
}

// link makes a node one more name of a file. A second name of a symbolic link becomes a
// link of its own with the same target: it may lie in another directory, where the same
// text leads elsewhere, and has to be judged by itself.
func (in *intake) link(i, target id) error {
	n, to := in.tree.at(i), in.tree.at(target)
	if to.kind == kindSymlink {
		in.tree.text += int64(len(to.link))
		n.kind, n.link, n.mode, n.uid, n.gid, n.sec, n.nsec = kindSymlink, to.link, to.mode, to.uid, to.gid, to.sec,
			to.nsec
		return nil
	}
	n.target = target
	if to.names++; to.names > maxLinks {
		return refuse(HardlinkLimit, "more than %d names for one file", maxLinks)
	}
	return nil
}

// parents finds the directory of an entry, and makes what is missing of it: root's, mode
// 0755, as every extractor does.
func (in *intake) parents(parts [][]byte) (id, error) {
	t, dir := in.tree, rootID
	for _, part := range parts {
		i, ok := t.find(dir, part)
		if !ok {
			if err := in.budget.entry(0); err != nil {
				return 0, err
			}
			i = t.insert(dir, part, kindDir)
			t.at(i).mode = 0o755
		}
		switch n := t.at(i); n.kind {
		case kindDir:
			n.layer = in.layer
		case kindSymlink:
			return 0, refuse(ThroughLink, "it lies below the symbolic link %q", shorten(t.path(rootID, i)))
		default:
			return 0, refuse(ParentNotDir, "it lies below %q, which is no directory", shorten(t.path(rootID, i)))
		}
		dir = i
	}
	return dir, nil
}

// claim returns the node for an entry: a new one, or a directory that is there already.
// What a lower layer has of another kind gives way; within one tarball a name is taken.
func (in *intake) claim(dir id, name []byte, k kind) (id, error) {
	t := in.tree
	i, ok := t.find(dir, name)
	if ok {
		old := t.at(i)
		switch {
		case old.kind == kindDir && k == kindDir:
			return i, nil
		case old.layer == in.layer:
			return 0, refuse(Duplicate, "the name is there twice")
		}
		t.remove(i)
	}
	return t.insert(dir, name, k), nil
}

// set copies an entry's attributes. Those of a hard link are its target's: taken from the
// entry, they would be a second way to change the target.
func (in *intake) set(i id, h *tarball.Header) {
	t := in.tree
	n := t.at(i)
	n.layer, n.data, n.index = in.layer, in.base+h.DataOffset, int32(h.Index)
	if n.kind == kindHardlink {
		return
	}
	n.mode, n.uid, n.gid, n.size = uint16(h.Mode), uint32(h.UID), uint32(h.GID), h.Size
	n.sec, n.nsec = h.ModTime.Sec, h.ModTime.Nsec
	switch {
	case n.kind == kindSymlink:
		n.link, n.mode = string(h.Linkname), 0o777
		t.text += int64(len(n.link))
	case in.layer > 0 && h.Type == tarball.Char && h.Device == [2]int64{}:
		n.kind = kindOverlay
	}
	delete(t.xattrs, i)
	if len(h.Xattrs) > 0 {
		t.xattrs[i] = make([]Xattr, 0, len(h.Xattrs))
	}
	for _, x := range h.Xattrs {
		t.xattrs[i] = append(t.xattrs[i], Xattr{Name: string(x.Name), Value: bytes.Clone(x.Value)})
		t.text += int64(len(x.Name) + len(x.Value) + xattrOverhead)
	}
}

// hardlink resolves a hard link's target: an earlier entry of this tarball, or one of a
// lower layer. It is pending where there is none: only at the end is known whether it
// comes later or never.
func (in *intake) hardlink(h *tarball.Header, own [][]byte) (target id, pending bool, err error) {
	if h.Type != tarball.Hardlink {
		return 0, false, nil
	}
	parts, err := in.targetParts(h.Linkname)
	if err != nil {
		return 0, false, err
	}
	if slices.EqualFunc(parts, own, bytes.Equal) {
		return 0, false, refuse(HardlinkSelf, "a hard link to itself")
	}
	target, found, err := in.lookup(parts)
	if err != nil || !found {
		return 0, err == nil, err
	}
	if in.tree.at(target).kind == kindDir {
		return 0, false, refuse(HardlinkToDir, "a hard link to the directory %q", shorten(string(h.Linkname)))
	}
	return in.tree.inode(target), false, nil
}

// targetParts checks a hard link's target as strictly as a name.
func (in *intake) targetParts(link []byte) ([][]byte, error) {
	switch {
	case len(link) == 0:
		return nil, refuse(HardlinkMissing, "a hard link to nothing")
	case link[0] == '/':
		return nil, refuse(HardlinkAbsolute, "the target %q is absolute", shorten(string(link)))
	}
	parts, err := splitName(nil, link, in.budget.limits)
	if r := asRejection(err); r != nil && r.Reason == DotdotName {
		return nil, refuse(HardlinkDotdot, `the target %q has a ".." component`, shorten(string(link)))
	}
	return parts, err
}

// lookup walks to a node; no symbolic link is followed.
func (in *intake) lookup(parts [][]byte) (id, bool, error) {
	at := rootID
	for _, part := range parts {
		if in.tree.at(at).kind == kindSymlink {
			return 0, false, refuse(ThroughLink, "the target lies below the symbolic link %q",
				shorten(in.tree.path(rootID, at)))
		}
		next, ok := in.tree.find(at, part)
		if !ok {
			return 0, false, nil
		}
		at = next
	}
	return at, true, nil
}

// waiting is a hard link without a target so far. The first one decides: the archive is
// refused either way.
type waiting struct {
	link   id
	target string
	reject *Rejection
}

func (in *intake) wait(i id, h *tarball.Header) {
	in.tree.at(i).kind = kindSkipped
	if in.waiting == nil {
		r := refuse(HardlinkMissing, "the target %q is not in the archive", shorten(string(h.Linkname)))
		_ = place(r, h, in.base)
		in.waiting = &waiting{link: i, target: string(h.Linkname), reject: r}
	}
}

// settle refuses an archive in which a hard link never found its target.
func (in *intake) settle() error {
	if in.waiting == nil {
		return nil
	}
	parts, err := in.targetParts([]byte(in.waiting.target))
	if err != nil {
		return err
	}
	r := in.waiting.reject
	if _, found, err := in.lookup(parts); err == nil && found {
		r.Reason, r.Detail = HardlinkForward, "the target comes later in the archive"
	}
	return r
}
