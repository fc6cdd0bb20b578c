package archive

import (
	"context"
	"fmt"
	"math"
	"strings"

	"imagemanager.internal/internal/archive/tarball"
)

// Times that an ext4 inode of 256 bytes holds: 34 bits, the lowest being -2^31.
// Source: Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps".
const (
	minTime = math.MinInt32
	maxTime = 1<<34 + math.MinInt32 - 1
)

// maxAdjustments is how many are described; real images have a few hundred. Beyond it
// they are made and counted.
const maxAdjustments = 2_000

const (
	setuid, setgid, sticky = 0o4000, 0o2000, 0o1000
)

// judge applies the policy to a finished tree, in the archive's order. The first
// violation counts, or else the first rejection: an attack is not to hide behind an
// absolute link.
type judge struct {
	tree        *tree
	root        id
	opts        Options
	adjusted    int
	adjustments []Adjustment
	worst       *Rejection
	refused     int
}

// all judges every name below the root. The tree is changed as the policy says.
func (j *judge) all(ctx context.Context) error {
	if err := j.tree.hold(ctx); err != nil {
		return err
	}
	w := &walker{tree: j.tree, root: j.root}
	err := j.tree.each(ctx, func(i id) error {
		if n := j.tree.at(i); n.gone && !n.held || i == rootID && j.root != rootID || n.kind == kindSkipped {
			return nil
		}
		j.node(i)
		return j.symlink(ctx, w, i)
	})
	if err != nil {
		return err
	}
	if j.worst != nil {
		j.worst.More = j.refused - 1
		return j.worst
	}
	return nil
}

// decide looks a rule up. It records the rejection, or the adjustment when the verdict is
// to change something, and reports whether the
// change is to be made.
func (j *judge) decide(i id, reason Reason, from, to, format string, args ...any) bool {
	rule := byReason[reason]
	switch rule.For(j.opts.Policy) {
	case Keep:
		return false
	case Reject:
		j.reject(i, rule, format, args...)
		return false
	}
	if j.adjusted++; j.adjusted > maxAdjustments {
		return true
	}
	j.adjustments = append(j.adjustments,
		Adjustment{Entry: shorten(j.tree.path(j.root, i)), Reason: reason, From: from, To: to})
	return true
}

func (j *judge) reject(i id, rule Rule, format string, args ...any) {
	j.refused++
	if j.worst != nil && (j.worst.Violation || !rule.Violation) {
		return
	}
	r := refuse(rule.Reason, format, args...)
	r.Remedy = remedy(rule, j.opts.Policy)
	j.locate(r, i)
	j.worst = r
}

// locate says which entry a rejection is about.
func (j *judge) locate(r *Rejection, i id) {
	n := j.tree.at(i)
	r.Entry, r.Index, r.Offset = shorten(j.tree.path(rootID, i)), int(n.index), max(n.data-tarball.BlockSize, 0)
}

// node judges everything but link targets.
func (j *judge) node(i id) {
	n := j.tree.at(i)
	if j.skipsMarker(i) {
		n.kind = kindSkipped
		return
	}
	switch n.kind {
	case kindFile:
		if n.size > j.opts.Limits.FileBytes {
			j.decide(i, FileTooBig, "", "", "a file of %d bytes, the limit is %d", n.size, j.opts.Limits.FileBytes)
		}
		j.bits(i, sticky, SpecialBits, "sticky bit on a file")
		j.bits(i, setuid|setgid, SetuidSetgid, "setuid or setgid")
	case kindDir:
		j.bits(i, setuid|setgid, SetuidSetgid, "setuid or setgid on a directory")
	case kindDevice:
		if j.decide(i, DeviceNode, "device", "", "a device node") {
			n.kind = kindSkipped
		}
	case kindFIFO:
		j.decide(i, FIFO, "", "", "a named pipe")
	case kindHardlink:
		if t := j.tree.at(n.target); t.kind == kindSkipped {
			j.decide(i, DeviceNode, "hard link to a device", "", "a device node")
			n.kind = kindSkipped
		}
		return
	}
	j.mtime(i)
	j.xattrs(i)
}

// skipsMarker judges whiteouts where they have no meaning, and those of other systems
// than OCI.
func (j *judge) skipsMarker(i id) bool {
	n := j.tree.at(i)
	switch {
	case n.kind == kindOverlay:
		return j.decide(i, OverlayMarker, n.name, "", "a whiteout of overlayfs, which is none in an image")
	case n.layer > 0 && strings.HasPrefix(n.name, string(aufsPrefix)):
		return j.decide(i, AufsMetadata, n.name, "", "metadata of aufs")
	case strings.HasPrefix(n.name, string(whiteoutPrefix)):
		return j.decide(i, Whiteout, n.name, "", "whiteouts have a meaning in image layers only")
	}
	return false
}

func (j *judge) bits(i id, mask uint16, reason Reason, what string) {
	n := j.tree.at(i)
	if n.mode&mask == 0 {
		return
	}
	from, to := fmt.Sprintf("%04o", n.mode), fmt.Sprintf("%04o", n.mode&^mask)
	if j.decide(i, reason, from, to, "%s, mode %s", what, from) {
		n.mode &^= mask
	}
}

func (j *judge) mtime(i id) {
	n := j.tree.at(i)
	if n.sec >= minTime && n.sec <= maxTime {
		return
	}
	sec, nsec := min(max(n.sec, minTime), maxTime), int32(0)
	if j.decide(i, MtimeRange, fmt.Sprint(n.sec), fmt.Sprint(sec), "modified %d seconds after 1970", n.sec) {
		n.sec, n.nsec = sec, nsec
	}
}

// symlink judges a link's target in the finished tree.
func (j *judge) symlink(ctx context.Context, w *walker, i id) error {
	n := j.tree.at(i)
	if n.kind != kindSymlink {
		return nil
	}
	escapes, err := w.escapes(ctx, i)
	switch {
	case err != nil:
	case escapes:
		j.decide(i, SymlinkEscapes, "", "", "the target %q leads out of the root", shorten(n.link))
	case strings.HasPrefix(n.link, "/"):
		err = j.absolute(w, i)
	}
	if r := asRejection(err); r != nil {
		j.locate(r, i)
	}
	return err
}

func (j *judge) absolute(w *walker, i id) error {
	n := j.tree.at(i)
	rel, ok := w.relative(i, n.link)
	if (!ok || len(rel) > j.opts.Limits.PathBytes) && byReason[SymlinkAbsolute].For(j.opts.Policy) == Rewrite {
		j.decide(i, SymlinkEscapes, "", "", "the absolute target %q has no relative equivalent", shorten(n.link))
		return nil
	}
	if !j.decide(i, SymlinkAbsolute, n.link, rel, "the target %q is absolute", shorten(n.link)) {
		return nil
	}
	j.tree.text += int64(len(rel) - len(n.link))
	n.link = rel
	return checkTreeText(j.tree, j.opts.Limits)
}
