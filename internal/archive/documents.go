package archive

import (
	"context"
	"errors"

	"imagemanager.internal/internal/archive/fstree"
)

// countDescriptor counts an index, manifest or layer that a document names. Documents
// could name each other without end, so the limit is one for the whole archive.
func (im *imageReader) countDescriptor(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if im.descriptors++; im.descriptors > im.opts.Limits.Descriptors {
		return refuse(ManifestLimit, "its documents name more than %d things", im.opts.Limits.Descriptors)
	}
	return nil
}

// readDocument returns the data of a document. The size of each is limited, and the sum
// of all.
func (im *imageReader) readDocument(member fstree.ID) ([]byte, error) {
	n := im.members.At(member)
	switch limits := im.opts.Limits; {
	case n.Size > limits.ManifestBytes:
		return nil, refuse(BadManifest, "%q has %d bytes, the limit is %d",
			shownPath(im.members, member), n.Size, limits.ManifestBytes)
	case n.Size > limits.DocumentBytes-im.parsed:
		return nil, refuse(ManifestLimit, "its documents have more than %d bytes together", limits.DocumentBytes)
	}
	im.parsed += n.Size
	data := make([]byte, n.Size)
	return data, n.ReadData(im.src, data, 0)
}

// memberDocument returns the JSON object in a member.
func (im *imageReader) memberDocument(ctx context.Context, name string) (object, error) {
	i, err := im.member(name)
	if err != nil {
		return nil, err
	}
	return im.parseMember(ctx, i, name)
}

// parseMember returns the JSON object in a member. name is for messages.
func (im *imageReader) parseMember(ctx context.Context, member fstree.ID, name string) (object, error) {
	data, err := im.readDocument(member)
	if err != nil {
		return nil, err
	}
	return asObject(ctx, name, data)
}

// blobDocument returns the JSON object in a descriptor's blob, verified.
func (im *imageReader) blobDocument(ctx context.Context, d object) (object, error) {
	i, err := im.verifiedBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	return im.parseMember(ctx, i, im.members.Path(fstree.Root, i))
}

// blobOnce is blobDocument for the first call with a blob. Later calls return nil: the
// content of a digest is always the same, and everything it names has been looked at.
func (im *imageReader) blobOnce(ctx context.Context, d object) (object, error) {
	i, err := im.verifiedBlob(ctx, d)
	if err != nil || im.seen[i] {
		return nil, err
	}
	im.seen[i] = true
	return im.parseMember(ctx, i, im.members.Path(fstree.Root, i))
}

func asObject(ctx context.Context, name string, data []byte) (object, error) {
	v, err := parseStrictJSON(ctx, data)
	switch {
	case errors.Is(err, errMalformedJSON):
		return nil, refuse(BadManifest, "%q: %s", fstree.TruncateName(name), err.Error())
	case err != nil:
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, refuse(BadManifest, "%q is not a JSON object", fstree.TruncateName(name))
	}
	return o, nil
}
