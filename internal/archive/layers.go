package archive

import (
	"bytes"
	"context"
	"errors"
	"io"

	"imagemanager.internal/internal/archive/tarball"
)

// Whiteouts. Source: OCI image specification, layer.md, "Whiteouts".
var (
	whiteoutPrefix = []byte(".wh.")
	aufsPrefix     = []byte(".wh..wh.")
	opaqueMarker   = []byte(".wh..wh..opq")
)

// errEnough ends the search for whiteouts in a layer with more entries than are allowed:
// the reading that follows refuses it, for that or for what comes before.
var errEnough = errors.New("enough")

// merge applies the layers to one tree, lowest first. Data stay where they are: a node
// knows its offset in the archive.
func (im *image) merge(ctx context.Context, layers []layer) (*tree, error) {
	t, b := newTree(), newBudget(im.opts.Limits)
	for k, l := range layers {
		in := &intake{tree: t, budget: b, layer: uint8(k + 1), base: l.data}
		if err := in.whiteouts(ctx, im.src, l.size); err != nil {
			return nil, inLayer(err, k)
		}
		if err := in.read(ctx, im.src, l.size); err != nil {
			return nil, inLayer(err, k)
		}
	}
	return t, nil
}

// whiteouts removes what a layer hides of those below. It goes before the layer's own
// entries, wherever the whiteouts stand: they never hide an entry of their own layer. Bad
// names are passed over here and refused when the entries are read.
func (in *intake) whiteouts(ctx context.Context, src io.ReaderAt, size int64) error {
	text := in.budget.text
	defer func() { in.budget.text = text }() // the same headers are counted when the entries are read
	seen := in.budget.entries
	err := in.each(ctx, src, size, func(h *tarball.Header) error {
		if seen++; seen > in.budget.limits.Entries {
			return errEnough
		}
		parts, err := splitName(in.parts[:0], h.Name, in.budget.limits)
		if err != nil || len(parts) == 0 {
			return nil //nolint:nilerr // refused later
		}
		in.parts = parts
		name := parts[len(parts)-1]
		if !isWhiteout(name) {
			return nil
		}
		dir, found, err := in.lookup(parts[:len(parts)-1])
		if err != nil || !found {
			return nil //nolint:nilerr // refused later, if it is then still so
		}
		in.hide(dir, name)
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (in *intake) hide(dir id, name []byte) {
	if bytes.Equal(name, opaqueMarker) {
		if in.tree.at(dir).kind == kindDir {
			in.tree.empty(dir)
		}
		return
	}
	if i, ok := in.tree.find(dir, bytes.TrimPrefix(name, whiteoutPrefix)); ok {
		in.tree.remove(i)
	}
}

// isWhiteout reports whether a name is a whiteout or the opaque marker, and not one of
// aufs' own files.
func isWhiteout(name []byte) bool {
	return bytes.Equal(name, opaqueMarker) || bytes.HasPrefix(name, whiteoutPrefix) &&
		!bytes.HasPrefix(name, aufsPrefix)
}

// whiteout checks a whiteout, which has done its work. The remainder of its name is to be
// a plain one before anybody builds a path of it (opencontainers/image-spec#1314).
func (in *intake) whiteout(h *tarball.Header, parts [][]byte) error {
	name := parts[len(parts)-1]
	switch rest := string(bytes.TrimPrefix(name, whiteoutPrefix)); {
	case rest == "" || rest == "." || rest == "..":
		return refuse(WhiteoutName, "a whiteout for %q", rest)
	case h.Type != tarball.Regular || h.Size != 0:
		return refuse(WhiteoutName, "a whiteout that is no empty file")
	}
	dir, found, err := in.lookup(parts[:len(parts)-1])
	switch {
	case err != nil:
		return err
	case found && in.tree.at(dir).kind == kindSymlink:
		return refuse(ThroughLink, "the whiteout lies below the symbolic link %q", shorten(in.tree.path(rootID, dir)))
	case found && in.tree.at(dir).kind != kindDir:
		return refuse(ParentNotDir, "the whiteout lies below %q, which is no directory",
			shorten(in.tree.path(rootID, dir)))
	}
	return nil
}
