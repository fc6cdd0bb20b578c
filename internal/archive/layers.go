package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/archive/tarball"
)

// Whiteouts. Source: OCI image specification, layer.md, "Whiteouts".
var (
	whiteoutPrefix = []byte(".wh.")
	aufsPrefix     = []byte(".wh..wh.")
	opaqueMarker   = []byte(".wh..wh..opq")
)

// errTooMany ends the search for whiteouts in a layer with more entries than allowed. The
// reading that follows refuses the layer, for that or for an earlier fault.
var errTooMany = errors.New("too many entries")

// mergeLayers applies the layers to one tree, lowest first. Data stay where they are: a
// node knows their offset in the archive.
func (im *imageReader) mergeLayers(ctx context.Context, layers []layer) (*fstree.Tree, error) {
	t, budget := fstree.New(), newBudget(im.opts.Limits)
	for k, l := range layers {
		b := &treeBuilder{tree: t, budget: budget, layer: uint8(k + 1), base: l.data, findings: im.findings}
		if err := b.applyWhiteouts(ctx, im.src, l.size); err != nil {
			return nil, err
		}
		if err := b.addEntries(ctx, im.src, l.size); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// applyWhiteouts hides the entries of lower layers for which this layer has a whiteout.
// It comes before the layer's own entries, as a whiteout never hides an entry of its own
// layer, even if it stands after it. Faults are ignored here and refused when the entries
// are added.
func (b *treeBuilder) applyWhiteouts(ctx context.Context, src io.ReaderAt, size int64) error {
	seen := b.budget.entries
	err := b.eachEntry(ctx, src, size, func(h *tarball.Header) error {
		if seen++; seen > b.budget.limits.Entries {
			return errTooMany
		}
		name, _ := trimSlashes(h.Name)
		parts, err := splitName(b.parts[:0], name, b.budget.limits)
		if err != nil || len(parts) == 0 {
			return nil //nolint:nilerr // refused later
		}
		b.parts = parts
		if name = parts[len(parts)-1]; !isWhiteout(name) {
			return nil
		}
		dir, found, err := lookup(b.tree, parts[:len(parts)-1])
		if err != nil || !found {
			return nil //nolint:nilerr // refused later, if the fault is still there
		}
		b.hide(dir, name)
		return nil
	})
	if errors.Is(err, errTooMany) || asRejection(err) != nil {
		return nil //nolint:nilerr // refused later
	}
	return err
}

// hide applies a whiteout, or an opaque marker.
func (b *treeBuilder) hide(dir fstree.ID, name []byte) {
	if bytes.Equal(name, opaqueMarker) {
		if b.tree.At(dir).Kind == fstree.KindDir {
			b.tree.Clear(dir)
		}
		return
	}
	if i, ok := b.tree.Find(dir, bytes.TrimPrefix(name, whiteoutPrefix)); ok {
		b.tree.Remove(i)
	}
}

// isWhiteout reports whether a name is a whiteout or the opaque marker. Files of aufs
// itself are neither.
func isWhiteout(name []byte) bool {
	return bytes.Equal(name, opaqueMarker) || bytes.HasPrefix(name, whiteoutPrefix) &&
		!bytes.HasPrefix(name, aufsPrefix)
}

// checkWhiteout refuses a malformed whiteout. The rest of its name must be a plain name,
// before anybody makes a path of it (opencontainers/image-spec#1314).
func (b *treeBuilder) checkWhiteout(h *tarball.Header, parts [][]byte) error {
	name := parts[len(parts)-1]
	switch rest := string(bytes.TrimPrefix(name, whiteoutPrefix)); {
	case rest == "" || rest == "." || rest == "..":
		return refuse(WhiteoutName, "a whiteout for %q", rest)
	case h.Type != tarball.Regular || h.Size != 0:
		return refuse(WhiteoutName, "a whiteout that is not an empty file")
	}
	dir, found, err := lookup(b.tree, parts[:len(parts)-1])
	switch {
	case err != nil:
		return err
	case found && b.tree.At(dir).Kind == fstree.KindSymlink:
		return refuseBelow(b.tree, dir, "which whiteouts do not follow")
	case found && b.tree.At(dir).Kind != fstree.KindDir:
		return refuse(ParentNotDir, "the whiteout lies below %q, which is not a directory",
			shownPath(b.tree, dir))
	}
	return nil
}

// endLayer returns the error of reading the layer, or nil if only the end marker is
// missing and the policy does without. A layer cannot be truncated: its digest has been
// verified.
func (b *treeBuilder) endLayer(err error) error {
	r, rule := asRejection(err), byReason[NoEOFMarker]
	switch {
	case r == nil || !r.unterminated || b.layer == 0:
		return err
	case rule.For(b.findings.policy) == Reject:
		r.Remedy = remedy(rule, b.findings.policy)
		return err
	}
	b.findings.adjust(NoEOFMarker, func() string { return fmt.Sprintf("layer %d", b.layer) },
		fmt.Sprintf("no end marker at byte %d", r.Offset), "with end marker")
	return nil
}
