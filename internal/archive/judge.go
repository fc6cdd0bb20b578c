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
	skipped  map[fstree.ID]Reason // nodes left out that have hard links, and why

	shortened bool // a link that climbed was rewritten, so others are to be judged again
}

// judgeAll judges every name below the root, and changes the tree as the policy says.
func (j *judge) judgeAll(ctx context.Context) error {
	if err := j.tree.MarkStillLinked(ctx); err != nil {
		return err
	}
	w := &linkWalker{tree: j.tree, root: j.root, steps: new(int)}
	err := j.eachJudged(ctx, func(i fstree.ID) error {
		j.judgeNode(i)
		return j.judgeSymlink(ctx, w, i)
	})
	// A rewritten link takes fewer steps, so a chain through it may no longer be too long
	// to follow. Links are judged until none changes; each round costs steps.
	for err == nil && j.shortened {
		j.shortened = false
		err = j.eachJudged(ctx, func(i fstree.ID) error { return j.judgeSymlink(ctx, w, i) })
	}
	return err
}

// eachJudged calls do for every node that is to be judged, in the order of the archive.
func (j *judge) eachJudged(ctx context.Context, do func(fstree.ID) error) error {
	return j.tree.Each(ctx, func(i fstree.ID) error {
		n := j.tree.At(i)
		outer := i == fstree.Root && j.root != fstree.Root // the root of a bundle is its rootfs/
		if n.Gone && !n.StillLinked || outer || n.Kind == fstree.KindSkipped {
			return nil
		}
		return do(i)
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
	if !j.findings.describes(rule.Reason) {
		j.findings.refusedBy[rule.Reason]++
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
	r.Layer = int(n.EntryLayer)
}

// judgeNode judges everything but the targets of symbolic links.
func (j *judge) judgeNode(i fstree.ID) {
	n := j.tree.At(i)
	if j.judgeMarker(i) {
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
		j.skip(i, DeviceNode, "device", "a device node")
	case fstree.KindFIFO:
		j.skip(i, FIFO, "fifo", "a named pipe")
	case fstree.KindHardlink:
		if reason, ok := j.skipped[n.Target]; ok {
			j.skip(i, reason, "hard link", "a hard link to what is left out")
		}
		return
	}
	j.judgeTime(i)
	j.judgeXattrs(i)
}

// skip applies a rule to a node that a policy leaves out, and reports whether it does.
// Hard links to the node are left out, too; they come after it.
func (j *judge) skip(i fstree.ID, reason Reason, from, detail string) bool {
	n := j.tree.At(i)
	if !j.decide(i, reason, from, "", "%s", detail) {
		return false
	}
	n.Kind = fstree.KindSkipped
	if n.Names > 1 {
		if j.skipped == nil {
			j.skipped = map[fstree.ID]Reason{}
		}
		j.skipped[i] = reason
	}
	return true
}

// judgeMarker judges whiteouts outside of layers, and markers of other systems than OCI.
// It reports whether the node is left out.
func (j *judge) judgeMarker(i fstree.ID) bool {
	n := j.tree.At(i)
	switch {
	case n.Kind == fstree.KindOverlay:
		return j.skip(i, OverlayMarker, n.Name, "a whiteout of overlayfs has no meaning in an image")
	case n.Layer > 0 && strings.HasPrefix(n.Name, string(aufsPrefix)):
		return j.skip(i, AufsMetadata, n.Name, "metadata of aufs")
	case strings.HasPrefix(n.Name, string(whiteoutPrefix)):
		return j.skip(i, Whiteout, n.Name, "whiteouts have a meaning in image layers only")
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
	err := w.follow(ctx, i)
	switch {
	case err != nil:
	case w.clamped: // links behind it that climb are judged by themselves
		err = j.rewriteLink(i, SymlinkEscapes, w.relative(i, w.rest), "leads out of the root")
	case strings.HasPrefix(n.Link, "/"):
		err = j.rewriteLink(i, SymlinkAbsolute, w.relative(i, n.Link), "is absolute")
	}
	if r := asRejection(err); r != nil {
		j.locate(r, i)
	}
	return err
}

// rewriteLink applies a rule to a symbolic link that a policy replaces by a relative one.
func (j *judge) rewriteLink(i fstree.ID, reason Reason, relative, fault string) error {
	target := j.tree.At(i).Link
	shown := fstree.TruncateName(target)
	if n := len(relative); n > j.opts.Limits.PathBytes && byReason[reason].For(j.opts.Policy) == Rewrite {
		j.decide(i, SymlinkTooLong, "", "", "the relative target for %q has %d bytes, the limit is %d",
			shown, n, j.opts.Limits.PathBytes)
		return nil
	}
	if !j.decide(i, reason, target, relative, "the target %q %s", shown, fault) {
		return nil
	}
	j.tree.SetLink(i, relative)
	j.shortened = j.shortened || reason == SymlinkEscapes
	return checkTreeText(j.tree, j.opts.Limits)
}
