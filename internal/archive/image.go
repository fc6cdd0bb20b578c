package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// image is an image in layers, being read.
type image struct {
	src     io.ReaderAt
	opts    Options
	members *tree           // of the outer archive; given up before the layers' tree is made
	sums    map[id][32]byte // of members already hashed

	seen     map[id]bool // documents already read whose content need not be looked at again
	followed int         // things named by documents
	parsed   int64       // bytes of documents
}

// composition is what an image consists of, all of it verified but the layers' contents.
type composition struct {
	config  []byte
	layers  []layer // lowest first
	diffIDs []string
}

type layer struct {
	member id
	data   int64 // where it lies in the archive
	size   int64
	digest string // "sha256:..." as declared; empty where the member's name says nothing
}

// image plans an image: its layers are verified, merged in memory and judged as one tree.
func (c *checker) image(ctx context.Context, members *tree, shape Shape) (*Plan, error) {
	collect(members.count) // what the reading left behind is not to stay beside the documents
	im := &image{src: c.src, opts: c.opts, members: members, sums: map[id][32]byte{}, seen: map[id]bool{}}
	read := im.docker
	if shape == OCI {
		read = im.oci
	}
	comp, err := read(ctx)
	if errors.Is(err, errDocument) {
		err = refuse(BadManifest, "%s", err.Error())
	}
	if err != nil {
		return nil, err
	}
	if err := im.verify(ctx, comp); err != nil {
		return nil, err
	}
	count := members.count
	*members = tree{} // the layers' tree is not to come on top of it
	collect(count)
	merged, err := im.merge(ctx, comp.layers)
	if err != nil {
		return nil, err
	}
	plan, err := c.finish(ctx, merged, rootID, shape)
	if err != nil {
		return nil, err
	}
	plan.Layers, plan.Config = len(comp.layers), comp.config
	plan.blocks += blocksOf(int64(len(comp.config)))
	return plan, nil
}

// verify compares the layers with the digests that the configuration and their names
// promise.
func (im *image) verify(ctx context.Context, comp *composition) error {
	if len(comp.layers) != len(comp.diffIDs) {
		return refuse(BadManifest, "%d layers, the configuration has %d", len(comp.layers), len(comp.diffIDs))
	}
	left := im.opts.Limits.ImageBytes
	for k, l := range comp.layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Before the digest: of a compressed layer the DiffID is another's, and the
		// better answer is its format.
		if err := detect(io.NewSectionReader(im.src, l.data, l.size), l.size); err != nil {
			return inLayer(err, k)
		}
		// Each is read as often as it is named; honest images repeat only empty ones.
		if left -= l.size; left < 0 {
			return inLayer(refuse(ImageTooBig, "the layers have more than %d bytes together",
				im.opts.Limits.ImageBytes), k)
		}
		got, err := im.digest(ctx, l.member)
		if err != nil {
			return err
		}
		for _, want := range []string{comp.diffIDs[k], l.digest} {
			if want != "" && want != got {
				return inLayer(refuse(DigestMismatch, "its digest is %s, should be %s", got, want), k)
			}
		}
	}
	return nil
}

// layer is a member as a layer.
func (im *image) layer(member id, digest string) layer {
	n := im.members.at(member)
	return layer{member: member, data: n.data, size: n.size, digest: digest}
}

// countLayers refuses too many before any of them is looked up.
func (im *image) countLayers(n int) error {
	if n > im.opts.Limits.Layers {
		return refuse(TooManyLayers, "%d layers, the limit is %d", n, im.opts.Limits.Layers)
	}
	return nil
}

// inLayer says which layer a rejection is about, counted from 1, lowest first.
func inLayer(err error, k int) error {
	if r := asRejection(err); r != nil {
		r.Detail = fmt.Sprintf("layer %d: %s", k+1, r.Detail)
	}
	return err
}

// digest is a member's SHA-256, taken once.
func (im *image) digest(ctx context.Context, member id) (string, error) {
	if sum, ok := im.sums[member]; ok {
		return "sha256:" + hex.EncodeToString(sum[:]), nil
	}
	n := im.members.at(member)
	hash, buf := sha256.New(), make([]byte, min(n.size, bufferSize))
	for done := int64(0); done < n.size; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		part := buf[:min(n.size-done, int64(len(buf)))]
		if err := readFull(im.src, part, n.data+done); err != nil {
			return "", err
		}
		hash.Write(part)
		done += int64(len(part))
	}
	im.sums[member] = [32]byte(hash.Sum(nil))
	return im.digest(ctx, member)
}

// member finds a regular file of the outer archive. Links are followed in memory only:
// hard links, and the symbolic links that docker writes for a layer that another has,
// "../<id>/layer.tar".
func (im *image) member(name string) (id, error) {
	parts, err := splitName(nil, []byte(name), im.opts.Limits)
	if err != nil {
		return 0, err
	}
	in := &intake{tree: im.members}
	i, found, err := in.lookup(parts)
	switch {
	case err != nil:
		return 0, err
	case !found || len(parts) == 0:
		return 0, refuse(MissingBlob, "%q is not in the archive", shorten(name))
	}
	n := im.members.at(i)
	if n.kind == kindSymlink && n.name == "layer.tar" {
		return im.sharedLayer(n.link)
	}
	if i = im.members.inode(i); im.members.at(i).kind != kindFile {
		return 0, refuse(BadManifest, "%q is no file", shorten(name))
	}
	return i, nil
}

func (im *image) sharedLayer(link string) (id, error) {
	hexID, ok := strings.CutSuffix(strings.TrimPrefix(link, "../"), "/layer.tar")
	if !ok || !strings.HasPrefix(link, "../") || !isHex(hexID) {
		return 0, refuse(BadManifest, "a layer is a link to %q", shorten(link))
	}
	dir := im.members.child(rootID, hexID)
	i := im.members.child(dir, "layer.tar")
	if dir == rootID || i == rootID || im.members.at(im.members.inode(i)).kind != kindFile {
		return 0, refuse(MissingBlob, "a layer is a link to %q, which is no file", shorten(link))
	}
	return im.members.inode(i), nil
}

// blobName turns a digest into its member's name. It is checked before anything is looked
// up by it.
func blobName(digest string) (string, error) {
	hexSum, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !isHex(hexSum) {
		return "", refuse(BadManifest, "the digest %q is not sha256 and 64 lower-case hex digits", shorten(digest))
	}
	return "blobs/sha256/" + hexSum, nil
}

// isHex reports whether s is a SHA-256 in lower-case hex.
func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// setConfig takes an image's configuration with its list of layers.
func (comp *composition) setConfig(ctx context.Context, name string, data []byte) error {
	o, err := asObject(ctx, name, data)
	if err != nil {
		return err
	}
	rootfs, err := o.child("rootfs")
	if err != nil {
		return err
	}
	if kind, err := rootfs.text("type"); err != nil || kind != "layers" {
		return refuse(BadManifest, "the configuration's rootfs is not of type layers")
	}
	if comp.diffIDs, err = rootfs.texts("diff_ids"); err != nil {
		return err
	}
	for _, d := range comp.diffIDs {
		if _, err := blobName(d); err != nil {
			return err
		}
	}
	comp.config = data
	return nil
}
