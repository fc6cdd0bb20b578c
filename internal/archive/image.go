package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// imageReader reads an image in layers.
type imageReader struct {
	src      io.ReaderAt
	opts     Options
	findings *findings
	members  *fstree.Tree           // of the outer archive; freed before the layers' tree is made
	sums     map[fstree.ID][32]byte // of members already hashed

	source      string             // of the image, for skopeo; empty if it cannot name it
	seen        map[fstree.ID]bool // documents already read, with all that they name
	descriptors int                // named by documents
	parsed      int64              // bytes of documents
}

// imageSpec lists the parts of an image. All of them are verified except the contents of
// the layers.
type imageSpec struct {
	config  []byte
	layers  []layer  // lowest first
	diffIDs []string // digests of the layers, uncompressed

	platform imagePlatform // as the configuration says
}

type layer struct {
	member fstree.ID
	data   int64 // offset in the archive
	size   int64
	digest string // "sha256:..." as declared; empty if the member's name has none
}

// layerList describes the layers, once they are verified.
func (spec *imageSpec) layerList() []Layer {
	list := make([]Layer, 0, len(spec.layers))
	for k, l := range spec.layers {
		list = append(list, Layer{Digest: spec.diffIDs[k], Size: l.size})
	}
	return list
}

// checkImage plans an image. It verifies the layers, merges them in memory and judges the
// result as one tree.
func (c *checker) checkImage(ctx context.Context, members *fstree.Tree, shape Shape) (*Plan, error) {
	collectGarbage(members.Len()) // the garbage of the reading would stay beside the documents
	im := &imageReader{
		src: c.src, opts: c.opts, findings: c.findings, members: members,
		sums: map[fstree.ID][32]byte{}, seen: map[fstree.ID]bool{},
	}
	read := im.readDocker
	if shape == OCI {
		read = im.readOCI
	}
	spec, err := read(ctx)
	if errors.Is(err, errMalformedJSON) {
		err = refuse(BadManifest, "%s", err.Error())
	}
	if err != nil {
		return nil, err
	}
	if err := im.verifyLayers(ctx, spec); err != nil {
		return nil, err
	}
	count := members.Len()
	*members = fstree.Tree{} // or the layers' tree would come on top of it
	collectGarbage(count)
	merged, err := im.mergeLayers(ctx, spec.layers)
	if err != nil {
		return nil, err
	}
	plan, err := c.judgeTree(ctx, merged, fstree.Root, shape)
	if err != nil {
		return nil, err
	}
	plan.Layers, plan.Config = spec.layerList(), spec.config
	plan.blocks += blocksFor(int64(len(spec.config)))
	return plan, nil
}

// verifyLayers compares the layers with the digests in the configuration and in their
// names.
func (im *imageReader) verifyLayers(ctx context.Context, spec *imageSpec) error {
	if len(spec.layers) != len(spec.diffIDs) {
		return refuse(BadManifest, "%d layers, the configuration has %d", len(spec.layers), len(spec.diffIDs))
	}
	left := im.opts.Limits.ImageBytes
	for k, l := range spec.layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// The format comes before the digest: the DiffID of a compressed layer differs,
		// as it is that of its content, and the format is the better answer.
		if err := im.detectLayerFormat(l); err != nil {
			return im.inLayer(err, k)
		}
		// A layer is read each time it is named. Honest images repeat only empty layers.
		if left -= l.size; left < 0 {
			return im.inLayer(refuse(ImageTooBig, "the layers have more than %d bytes together",
				im.opts.Limits.ImageBytes), k)
		}
		got, err := im.digest(ctx, l.member)
		if err != nil {
			return err
		}
		for _, want := range []string{spec.diffIDs[k], l.digest} {
			if want != "" && want != got {
				return im.inLayer(refuse(DigestMismatch, "its digest is %s, should be %s", got, want), k)
			}
		}
	}
	return nil
}

// detectLayerFormat is detectFormat for a layer. One without any bytes is an empty layer
// that lacks its end marker.
func (im *imageReader) detectLayerFormat(l layer) error {
	if l.size == 0 {
		return nil
	}
	return detectFormat(io.NewSectionReader(im.src, l.data, l.size), l.size)
}

// layer returns a member as a layer.
func (im *imageReader) layer(member fstree.ID, digest string) layer {
	n := im.members.At(member)
	return layer{member: member, data: n.Data, size: n.Size, digest: digest}
}

// checkLayerCount refuses too many layers before any of them is looked up.
func (im *imageReader) checkLayerCount(n int) error {
	if n > im.opts.Limits.Layers {
		return refuse(TooManyLayers, "%d layers, the limit is %d", n, im.opts.Limits.Layers)
	}
	return nil
}

// inLayer adds the layer to a rejection, counted from 1, lowest first. To decompress the
// file is no remedy for a layer.
func (im *imageReader) inLayer(err error, k int) error {
	r := asRejection(err)
	if r == nil {
		return err
	}
	r.inLayer(k + 1)
	if r.isCompressed() {
		r.Remedy = decompressLayers(im.source, r.Reason)
	}
	return err
}

// digest returns a member's SHA-256, as "sha256:" and hex digits. It reads a member once.
func (im *imageReader) digest(ctx context.Context, member fstree.ID) (string, error) {
	if sum, ok := im.sums[member]; ok {
		return "sha256:" + hex.EncodeToString(sum[:]), nil
	}
	n := im.members.At(member)
	const chunk = 1 << 20 // also bounds how long a cancelled digest goes on
	hash, buf := sha256.New(), make([]byte, min(n.Size, chunk))
	for done := int64(0); done < n.Size; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		part := buf[:min(n.Size-done, int64(len(buf)))]
		if err := n.ReadData(im.src, part, done); err != nil {
			return "", err
		}
		hash.Write(part)
		done += int64(len(part))
	}
	im.sums[member] = [32]byte(hash.Sum(nil))
	return im.digest(ctx, member)
}

// hasMember reports whether the outer archive has a member at its top.
func (im *imageReader) hasMember(name string) bool {
	return im.members.Child(fstree.Root, name) != fstree.Root
}

// member finds a regular file of the outer archive. It follows hard links, and one kind
// of symbolic link: docker writes "../<id>/layer.tar" for a layer that another one has
// too.
func (im *imageReader) member(name string) (fstree.ID, error) {
	parts, err := splitName(nil, []byte(name), im.opts.Limits)
	if err != nil {
		return 0, refuseMemberName(err)
	}
	i, found, err := lookup(im.members, parts)
	switch {
	case err != nil:
		return 0, err
	case !found || len(parts) == 0:
		return 0, refuse(MissingBlob, "%q is not in the archive", fstree.TruncateName(name))
	}
	n := im.members.At(i)
	if n.Kind == fstree.KindSymlink && n.Name == "layer.tar" {
		return im.sharedLayer(n.Link)
	}
	if i = im.members.Inode(i); im.members.At(i).Kind != fstree.KindFile {
		return 0, refuse(BadManifest, "%q is not a file", fstree.TruncateName(name))
	}
	return i, nil
}

// refuseMemberName adds the remedy for names that other tools write into manifest.json.
func refuseMemberName(err error) error {
	if r := asRejection(err); r != nil && (r.Reason == AbsoluteName || r.Reason == EmptyName) {
		r.Detail = "manifest.json: " + r.Detail
		r.Remedy = "load the image into Docker and save it again"
	}
	return err
}

func (im *imageReader) sharedLayer(link string) (fstree.ID, error) {
	hexID, ok := strings.CutSuffix(strings.TrimPrefix(link, "../"), "/layer.tar")
	if !ok || !strings.HasPrefix(link, "../") || !isHex(hexID) {
		return 0, refuse(BadManifest, "a layer is a link to %q", fstree.TruncateName(link))
	}
	dir := im.members.Child(fstree.Root, hexID)
	i := im.members.Child(dir, "layer.tar")
	if dir == fstree.Root || i == fstree.Root || im.members.At(im.members.Inode(i)).Kind != fstree.KindFile {
		return 0, refuse(MissingBlob, "a layer is a link to %q, which is not a file", fstree.TruncateName(link))
	}
	return im.members.Inode(i), nil
}

// blobName returns the name of the member with a digest. It checks the digest, so nothing
// is looked up by a malformed one.
func blobName(digest string) (string, error) {
	hexSum, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !isHex(hexSum) {
		return "", refuse(BadManifest, "the digest %q is not sha256 and 64 lower-case hex digits",
			fstree.TruncateName(digest))
	}
	return "blobs/sha256/" + hexSum, nil
}

// isHex reports whether s is a SHA-256 in lower-case hex.
func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// setConfig sets the image's configuration, and the platform and the layers in it.
func (spec *imageSpec) setConfig(ctx context.Context, name string, data []byte) error {
	o, err := asObject(ctx, name, data)
	if err != nil {
		return err
	}
	if spec.platform, err = platformIn(o); err != nil {
		return err
	}
	rootfs, err := o.objectAt("rootfs")
	if err != nil {
		return err
	}
	if kind, err := rootfs.stringAt("type"); err != nil || kind != "layers" {
		return refuse(BadManifest, "the configuration's rootfs is not of type layers")
	}
	if spec.diffIDs, err = rootfs.stringsAt("diff_ids"); err != nil {
		return err
	}
	for _, d := range spec.diffIDs {
		if _, err := blobName(d); err != nil {
			return err
		}
	}
	spec.config = data
	return nil
}
