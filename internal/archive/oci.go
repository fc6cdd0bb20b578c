package archive

import (
	"cmp"
	"context"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// Media types. Source: OCI image specification, media-types.md; Docker image manifest
// version 2, schema 2.
const (
	mediaIndex        = "application/vnd.oci.image.index.v1+json"
	mediaManifest     = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig       = "application/vnd.oci.image.config.v1+json"
	mediaLayers       = "application/vnd.oci.image.layer."
	mediaLayer        = mediaLayers + "v1.tar"
	mediaLayerForeign = mediaLayers + "nondistributable.v1.tar"

	dockerList         = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayers       = "application/vnd.docker.image.rootfs."
	dockerLayer        = dockerLayers + "diff.tar"
	dockerLayerForeign = dockerLayers + "foreign.diff.tar"
)

// maxNesting is how many levels of indexes may be nested.
const maxNesting = 4

// readOCI reads an OCI image layout: oci-layout, index.json, and blobs named by their
// digests.
func (im *imageReader) readOCI(ctx context.Context) (*imageSpec, error) {
	layout, err := im.memberDocument(ctx, "oci-layout")
	if err != nil {
		return nil, err
	}
	if version, err := layout.stringAt("imageLayoutVersion"); err != nil || version != "1.0.0" {
		return nil, refuse(BadManifest, "oci-layout has version %q, known is 1.0.0", fstree.TruncateName(version))
	}
	index, err := im.memberDocument(ctx, "index.json")
	if err != nil {
		return nil, err
	}
	list, err := index.objectsAt("manifests")
	if err != nil {
		return nil, err
	}
	chosen, err := im.chooseImage(ctx, list)
	if err != nil {
		return nil, err
	}
	im.source = ociSource(chosen.name, len(list))
	return chosen.spec, im.readLayers(ctx, chosen)
}

// eachManifest calls do for all that an index lists, and the indexes below it. It reads
// each index once, even if it is named several times. What is of an unknown type is no
// image. Source: OCI image specification, image-index.md, "manifests".
func (im *imageReader) eachManifest(ctx context.Context, list []object, depth int, do func(manifestRef) error) error {
	if depth > maxNesting {
		return refuse(BadManifest, "indexes in indexes, more than %d deep", maxNesting)
	}
	for _, d := range list {
		if err := im.countDescriptor(ctx); err != nil {
			return err
		}
		media, err := d.stringAt("mediaType")
		if err != nil {
			return err
		}
		switch media {
		case mediaIndex, dockerList:
			err = im.eachNestedManifest(ctx, d, depth, do)
		case mediaManifest, dockerManifest:
			err = passManifest(d, do)
		default:
			err = do(manifestRef{artifact: cmp.Or(media, untyped)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (im *imageReader) eachNestedManifest(ctx context.Context, d object, depth int, do func(manifestRef) error) error {
	index, err := im.blobOnce(ctx, d)
	if err != nil || index == nil {
		return err
	}
	list, err := index.objectsAt("manifests")
	if err != nil {
		return err
	}
	return im.eachManifest(ctx, list, depth+1, do)
}

func passManifest(d object, do func(manifestRef) error) error {
	m, err := newManifestRef(d)
	if err != nil {
		return err
	}
	return do(m)
}

// readConfig reads the configuration that a manifest names.
func (im *imageReader) readConfig(ctx context.Context, manifest object) (*imageSpec, error) {
	config, err := manifest.objectAt("config")
	if err != nil {
		return nil, err
	}
	i, err := im.verifiedBlob(ctx, config)
	if err != nil {
		return nil, err
	}
	data, err := im.readDocument(i)
	if err != nil {
		return nil, err
	}
	spec := &imageSpec{}
	return spec, spec.setConfig(ctx, "configuration", data)
}

// readLayers reads the list of layers in the manifest of an image.
func (im *imageReader) readLayers(ctx context.Context, c *candidate) error {
	layers, err := c.manifest.objectsAt("layers")
	if err != nil {
		return err
	}
	if err := im.checkLayerCount(len(layers)); err != nil {
		return err
	}
	for k, d := range layers {
		if err := im.countDescriptor(ctx); err != nil {
			return err
		}
		l, err := im.ociLayer(d)
		if err != nil {
			return im.inLayer(err, k)
		}
		c.spec.layers = append(c.spec.layers, l)
	}
	return nil
}

// ociLayer finds a layer's blob. verifyLayers verifies its content later. Foreign layers
// are never fetched.
func (im *imageReader) ociLayer(d object) (layer, error) {
	media, err := d.stringAt("mediaType")
	if err != nil {
		return layer{}, err
	}
	if err := checkLayerType(media); err != nil {
		return layer{}, err
	}
	i, err := im.findBlob(d)
	if err != nil {
		return layer{}, err
	}
	digest, err := d.stringAt("digest")
	return im.layer(i, digest), err
}

// checkLayerType refuses layers of unknown types. Whether a layer is compressed, its
// bytes say: skopeo writes plain layers with the types of compressed ones.
func checkLayerType(media string) error {
	for _, suffix := range []string{"+gzip", "+zstd", ".gzip", ".zstd"} {
		if plain, ok := strings.CutSuffix(media, suffix); ok {
			media = plain
			break
		}
	}
	switch media {
	case mediaLayer, mediaLayerForeign, dockerLayer, dockerLayerForeign:
		return nil
	}
	return refuse(BadManifest, "a layer of type %q", fstree.TruncateName(media))
}

// findBlob finds the blob of a descriptor and compares its size.
func (im *imageReader) findBlob(d object) (fstree.ID, error) {
	digest, err := d.stringAt("digest")
	if err != nil {
		return 0, err
	}
	name, err := blobName(digest)
	if err != nil {
		return 0, err
	}
	size, err := d.intAt("size")
	if err != nil {
		return 0, err
	}
	i, err := im.member(name)
	if err != nil {
		return 0, err
	}
	if got := im.members.At(i).Size; got != size {
		return 0, refuse(DigestMismatch, "blob %s has %d bytes, should have %d", digest, got, size)
	}
	return i, nil
}

// verifiedBlob is findBlob for a document, with the content verified.
func (im *imageReader) verifiedBlob(ctx context.Context, d object) (fstree.ID, error) {
	i, err := im.findBlob(d)
	if err != nil {
		return 0, err
	}
	if im.members.At(i).Size > im.opts.Limits.ManifestBytes {
		return 0, refuse(BadManifest, "a document of %d bytes, the limit is %d", im.members.At(i).Size,
			im.opts.Limits.ManifestBytes)
	}
	got, err := im.digest(ctx, i)
	if err != nil {
		return 0, err
	}
	if want, _ := d.stringAt("digest"); got != want {
		return 0, refuse(DigestMismatch, "blob %s has the digest %s", want, got)
	}
	return i, nil
}
