package archive

import (
	"context"
	"errors"
)

// follow counts one thing that a document names: an index, a manifest, a layer. Documents
// that name each other could be followed without end, so one budget holds for the whole
// archive.
func (im *image) follow(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if im.followed++; im.followed > im.opts.Limits.Descriptors {
		return refuse(ManifestLimit, "its documents name more than %d things", im.opts.Limits.Descriptors)
	}
	return nil
}

// read returns the data of a document, which is small and counts against the archive's
// budget.
func (im *image) read(member id) ([]byte, error) {
	n := im.members.at(member)
	switch limits := im.opts.Limits; {
	case n.size > limits.ManifestBytes:
		return nil, refuse(BadManifest, "%q has %d bytes, the limit is %d",
			shorten(im.members.path(rootID, member)), n.size, limits.ManifestBytes)
	case n.size > limits.DocumentBytes-im.parsed:
		return nil, refuse(ManifestLimit, "its documents have more than %d bytes together", limits.DocumentBytes)
	}
	im.parsed += n.size
	data := make([]byte, n.size)
	return data, readFull(im.src, data, n.data)
}

// document returns a member as JSON object.
func (im *image) document(ctx context.Context, name string) (object, error) {
	i, err := im.member(name)
	if err != nil {
		return nil, err
	}
	return im.parse(ctx, i, name)
}

// parse returns a member as JSON object. name is for messages.
func (im *image) parse(ctx context.Context, member id, name string) (object, error) {
	data, err := im.read(member)
	if err != nil {
		return nil, err
	}
	return asObject(ctx, name, data)
}

// blobDocument is a descriptor's blob as JSON object, verified.
func (im *image) blobDocument(ctx context.Context, d object) (object, error) {
	i, err := im.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return im.parse(ctx, i, im.members.path(rootID, i))
}

// blobOnce is blobDocument for the first time that the blob is asked for. Later it is
// nil: the same digest has the same content, and all that it names has been looked at.
func (im *image) blobOnce(ctx context.Context, d object) (object, error) {
	i, err := im.blob(ctx, d)
	if err != nil || im.seen[i] {
		return nil, err
	}
	im.seen[i] = true
	return im.parse(ctx, i, im.members.path(rootID, i))
}

func asObject(ctx context.Context, name string, data []byte) (object, error) {
	v, err := parseDocument(ctx, data)
	switch {
	case errors.Is(err, errDocument):
		return nil, refuse(BadManifest, "%q: %s", shorten(name), err.Error())
	case err != nil:
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, refuse(BadManifest, "%q is no JSON object", shorten(name))
	}
	return o, nil
}
