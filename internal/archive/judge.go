package archive

import (
	"context"
	"fmt"
	"math"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

// The range of times in an ext4 inode of 256 bytes: 34 bits, the lowest time being -2^31.
// Source: Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps".
const (
	minTime = math.MinInt32
	maxTime = 1<<34 + math.MinInt32 - 1
)

const (
	setuid, setgid, sticky = 0o4000, 0o2000, 0o1000
)

// judge applies the policy to a finished tree, in the order of the archive.
type judge struct {
	tree     *fstree.Tree
	root     fstree.ID
	opts     Options
	findings *findings
}

// judgeAll judges every name below the root, and changes the tree as the policy says.
func (j *judge) judgeAll(ctx context.Context) error {
	if err := j.tree.MarkStillLinked(ctx); err != nil {
		return err
	}
	w := &linkWalker{tree: j.tree, root: j.root}
	return j.tree.Each(ctx, func(i fstree.ID) error {
		n := j.tree.At(i)
		outer := i == fstree.Root && j.root != fstree.Root // the root of a bundle is its rootfs/
		if n.Gone && !n.StillLinked || outer || n.Kind == fstree.KindSkipped {
			return nil
		}
		j.judgeNode(i)
		return j.judgeSymlink(ctx, w, i)
	})
}

// decide applies a rule to a node. It records the rejection or the adjustment, and
// reports whether the caller has to change the node.
func (j *judge) decide(i fstree.ID, reason Reason, from, to, format string, args ...any) bool {
	rule := byReason[reason]
	switch rule.For(j.opts.Policy) {
	case Keep:
		return false
	case Reject:
		j.reject(i, rule, format, args...)
		return false
	}
	j.findings.adjust(reason, func() string { return j.tree.Path(j.root, i) }, from, to)
	return true
}

func (j *judge) reject(i fstree.ID, rule Rule, format string, args ...any) {
	if !j.findings.outweighs(rule.Violation) {
		j.findings.refused++
		return
	}
	r := refuse(rule.Reason, format, args...)
	r.Remedy = remedy(rule, j.opts.Policy)
	j.locate(r, i)
	j.findings.reject(r)
}

// locate adds the entry of a node to a rejection.
func (j *judge) locate(r *Rejection, i fstree.ID) {
	n := j.tree.At(i)
	r.locate(j.tree.Path(fstree.Root, i), int(n.Index), max(n.Data-tarball.BlockSize, 0))
}

// judgeNode judges everything but the targets of symbolic links.
func (j *judge) judgeNode(i fstree.ID) {
	n := j.tree.At(i)
	if j.skipsMarker(i) {
		n.Kind = fstree.KindSkipped
		return
	}
	switch n.Kind {
	case fstree.KindFile:
		if n.Size > j.opts.Limits.FileBytes {
			j.decide(i, FileTooBig, "", "", "a file of %d bytes, the limit is %d", n.Size, j.opts.Limits.FileBytes)
		}
		j.judgeBits(i, sticky, SpecialBits, "sticky bit on a file")
		j.judgeBits(i, setuid|setgid, SetuidSetgid, "setuid or setgid")
	case fstree.KindDir:
		j.judgeBits(i, setuid|setgid, SetuidSetgid, "setuid or setgid on a directory")
	case fstree.KindDevice:
		if j.decide(i, DeviceNode, "device", "", "a device node") {
			n.Kind = fstree.KindSkipped
		}
	case fstree.KindFIFO:
		j.decide(i, FIFO, "", "", "a named pipe")
	case fstree.KindHardlink:
		if t := j.tree.At(n.Target); t.Kind == fstree.KindSkipped {
			j.decide(i, DeviceNode, "hard link to a device", "", "a device node")
			n.Kind = fstree.KindSkipped
		}
		return
	}
	j.judgeTime(i)
	j.judgeXattrs(i)
}

// skipsMarker judges whiteouts outside of layers, and markers of other systems than OCI.
// It reports whether the node is to be skipped.
func (j *judge) skipsMarker(i fstree.ID) bool {
	n := j.tree.At(i)
	switch {
	case n.Kind == fstree.KindOverlay:
		return j.decide(i, OverlayMarker, n.Name, "", "a whiteout of overlayfs has no meaning in an image")
	case n.Layer > 0 && strings.HasPrefix(n.Name, string(aufsPrefix)):
		return j.decide(i, AufsMetadata, n.Name, "", "metadata of aufs")
	case strings.HasPrefix(n.Name, string(whiteoutPrefix)):
		return j.decide(i, Whiteout, n.Name, "", "whiteouts have a meaning in image layers only")
	}
	return false
}

func (j *judge) judgeBits(i fstree.ID, mask uint16, reason Reason, what string) {
	n := j.tree.At(i)
	if n.Mode&mask == 0 {
		return
	}
	from, to := fmt.Sprintf("%04o", n.Mode), fmt.Sprintf("%04o", n.Mode&^mask)
	if j.decide(i, reason, from, to, "%s, mode %s", what, from) {
		n.Mode &^= mask
	}
}

func (j *judge) judgeTime(i fstree.ID) {
	n := j.tree.At(i)
	if n.Sec >= minTime && n.Sec <= maxTime {
		return
	}
	sec, nsec := min(max(n.Sec, minTime), maxTime), int32(0)
	if j.decide(i, MtimeRange, fmt.Sprint(n.Sec), fmt.Sprint(sec), "modified %d seconds after 1970", n.Sec) {
		n.Sec, n.Nsec = sec, nsec
	}
}

// judgeSymlink judges the target of a symbolic link in the finished tree.
func (j *judge) judgeSymlink(ctx context.Context, w *linkWalker, i fstree.ID) error {
	n := j.tree.At(i)
	if n.Kind != fstree.KindSymlink {
		return nil
	}
	escapes, err := w.escapes(ctx, i)
	switch {
	case err != nil:
	case escapes:
		j.decide(i, SymlinkEscapes, "", "", "the target %q leads out of the root", fstree.TruncateName(n.Link))
	case strings.HasPrefix(n.Link, "/"):
		err = j.judgeAbsoluteLink(w, i)
	}
	if r := asRejection(err); r != nil {
		j.locate(r, i)
	}
	return err
}

func (j *judge) judgeAbsoluteLink(w *linkWalker, i fstree.ID) error {
	target := j.tree.At(i).Link
	shown := fstree.TruncateName(target)
	rel, ok := w.relative(i, target)
	if (!ok || len(rel) > j.opts.Limits.PathBytes) && byReason[SymlinkAbsolute].For(j.opts.Policy) == Rewrite {
		j.decide(i, SymlinkEscapes, "", "", "the absolute target %q has no relative equivalent", shown)
		return nil
	}
	if !j.decide(i, SymlinkAbsolute, target, rel, "the target %q is absolute", shown) {
		return nil
	}
	j.tree.SetLink(i, rel)
	return checkTreeText(j.tree, j.opts.Limits)
}
