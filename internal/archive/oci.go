package archive

import (
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
	mediaLayer        = "application/vnd.oci.image.layer.v1.tar"
	mediaLayerForeign = "application/vnd.oci.image.layer.nondistributable.v1.tar"

	dockerList         = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar"
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
	chosen, err := im.chooseManifest(ctx, list)
	if err != nil {
		return nil, err
	}
	manifest, err := im.blobDocument(ctx, chosen)
	if err != nil {
		return nil, err
	}
	return im.readManifest(ctx, manifest)
}

// manifestRef is one image in an index.
type manifestRef struct {
	descriptor object
	digest     string
	platform   Platform // empty if the index does not say
}

// chooseManifest returns the descriptor of the one image for the wanted platform.
func (im *imageReader) chooseManifest(ctx context.Context, list []object) (object, error) {
	fits := map[string]object{}
	others := 0
	err := im.eachManifest(ctx, list, 0, func(m manifestRef) error {
		if m.platform == (Platform{}) || m.platform == im.opts.Platform {
			fits[m.digest] = m.descriptor
		} else {
			others++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch len(fits) {
	case 1:
		for _, d := range fits {
			return d, nil
		}
	case 0:
		return nil, refuse(NoPlatform, "no image for %s/%s, %d for others", im.opts.Platform.OS,
			im.opts.Platform.Architecture, others)
	}
	r := refuse(MultipleImages, "%d images for %s/%s", len(fits), im.opts.Platform.OS, im.opts.Platform.Architecture)
	r.Remedy = "put one image into the layout"
	return nil, r
}

// eachManifest calls do for every image of an index and of the indexes below it. It reads
// each index once, even if it is named several times. It skips attestations.
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
			err = im.passManifest(d, do)
		default:
			err = refuse(BadManifest, "the index lists something of type %q", fstree.TruncateName(media))
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

func (im *imageReader) passManifest(d object, do func(manifestRef) error) error {
	digest, err := d.stringAt("digest")
	if err != nil {
		return err
	}
	p, err := d.objectAt("platform")
	if err != nil {
		return err
	}
	system, err := p.stringAt("os")
	if err != nil {
		return err
	}
	architecture, err := p.stringAt("architecture")
	if err != nil {
		return err
	}
	if system == "unknown" && architecture == "unknown" { // how BuildKit marks attestations
		return nil
	}
	return do(manifestRef{descriptor: d, digest: digest, platform: Platform{OS: system, Architecture: architecture}})
}

// readManifest reads a manifest's configuration and layers.
func (im *imageReader) readManifest(ctx context.Context, manifest object) (*imageSpec, error) {
	config, err := manifest.objectAt("config")
	if err != nil {
		return nil, err
	}
	if media, err := config.stringAt("mediaType"); err != nil || media != mediaConfig && media != dockerConfig {
		return nil, refuse(BadManifest, "the manifest's configuration is of type %q, not of a container image",
			fstree.TruncateName(media))
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
	if err := spec.setConfig(ctx, "configuration", data); err != nil {
		return nil, err
	}
	layers, err := manifest.objectsAt("layers")
	if err != nil {
		return nil, err
	}
	if err := im.checkLayerCount(len(layers)); err != nil {
		return nil, err
	}
	for k, d := range layers {
		if err := im.countDescriptor(ctx); err != nil {
			return nil, err
		}
		l, err := im.ociLayer(d)
		if err != nil {
			return nil, inLayer(err, k)
		}
		spec.layers = append(spec.layers, l)
	}
	return spec, nil
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

// checkLayerType refuses compressed layers, and layers of unknown types.
func checkLayerType(media string) error {
	for _, f := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(media, "+"+f) || strings.HasSuffix(media, ".tar."+f) {
			return refuseCompressed(format{name: f, compressed: true})
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
