package archive

import (
	"context"
	"strings"
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

// maxNesting is how deep indexes may lie in indexes.
const maxNesting = 4

// oci reads an OCI image layout: oci-layout, index.json, and blobs named by their
// digests.
func (im *image) oci(ctx context.Context) (*composition, error) {
	layout, err := im.document(ctx, "oci-layout")
	if err != nil {
		return nil, err
	}
	if version, err := layout.text("imageLayoutVersion"); err != nil || version != "1.0.0" {
		return nil, refuse(BadManifest, "oci-layout has version %q, known is 1.0.0", shorten(version))
	}
	index, err := im.document(ctx, "index.json")
	if err != nil {
		return nil, err
	}
	list, err := index.objects("manifests")
	if err != nil {
		return nil, err
	}
	chosen, err := im.choose(ctx, list)
	if err != nil {
		return nil, err
	}
	manifest, err := im.blobDocument(ctx, chosen)
	if err != nil {
		return nil, err
	}
	return im.ociManifest(ctx, manifest)
}

// manifestRef is one image in an index.
type manifestRef struct {
	descriptor object
	digest     string
	platform   Platform // empty where the index does not say
}

// choose returns the descriptor of the one image for the wanted platform.
func (im *image) choose(ctx context.Context, list []object) (object, error) {
	fits := map[string]object{}
	others := 0
	err := im.manifests(ctx, list, 0, func(m manifestRef) error {
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

// manifests calls do for every image of an index and the indexes below it, of which each
// is read once, however often it is named. Attestations are passed over.
func (im *image) manifests(ctx context.Context, list []object, depth int, do func(manifestRef) error) error {
	if depth > maxNesting {
		return refuse(BadManifest, "indexes in indexes, more than %d deep", maxNesting)
	}
	for _, d := range list {
		if err := im.follow(ctx); err != nil {
			return err
		}
		media, err := d.text("mediaType")
		if err != nil {
			return err
		}
		switch media {
		case mediaIndex, dockerList:
			err = im.nested(ctx, d, depth, do)
		case mediaManifest, dockerManifest:
			err = im.manifest(d, do)
		default:
			err = refuse(BadManifest, "the index lists something of type %q", shorten(media))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (im *image) nested(ctx context.Context, d object, depth int, do func(manifestRef) error) error {
	index, err := im.blobOnce(ctx, d)
	if err != nil || index == nil {
		return err
	}
	list, err := index.objects("manifests")
	if err != nil {
		return err
	}
	return im.manifests(ctx, list, depth+1, do)
}

func (im *image) manifest(d object, do func(manifestRef) error) error {
	digest, err := d.text("digest")
	if err != nil {
		return err
	}
	p, err := d.child("platform")
	if err != nil {
		return err
	}
	system, err := p.text("os")
	if err != nil {
		return err
	}
	architecture, err := p.text("architecture")
	if err != nil {
		return err
	}
	if system == "unknown" && architecture == "unknown" { // how BuildKit marks attestations
		return nil
	}
	return do(manifestRef{descriptor: d, digest: digest, platform: Platform{OS: system, Architecture: architecture}})
}

// ociManifest reads a manifest's configuration and layers.
func (im *image) ociManifest(ctx context.Context, manifest object) (*composition, error) {
	config, err := manifest.child("config")
	if err != nil {
		return nil, err
	}
	if media, err := config.text("mediaType"); err != nil || media != mediaConfig && media != dockerConfig {
		return nil, refuse(BadManifest, "the manifest's configuration is of type %q: no container image",
			shorten(media))
	}
	i, err := im.blob(ctx, config)
	if err != nil {
		return nil, err
	}
	data, err := im.read(i)
	if err != nil {
		return nil, err
	}
	comp := &composition{}
	if err := comp.setConfig(ctx, "configuration", data); err != nil {
		return nil, err
	}
	layers, err := manifest.objects("layers")
	if err != nil {
		return nil, err
	}
	if err := im.countLayers(len(layers)); err != nil {
		return nil, err
	}
	for k, d := range layers {
		if err := im.follow(ctx); err != nil {
			return nil, err
		}
		l, err := im.ociLayer(d)
		if err != nil {
			return nil, inLayer(err, k)
		}
		comp.layers = append(comp.layers, l)
	}
	return comp, nil
}

// ociLayer finds a layer's blob; its content is verified with all layers. Foreign layers
// are never fetched.
func (im *image) ociLayer(d object) (layer, error) {
	media, err := d.text("mediaType")
	if err != nil {
		return layer{}, err
	}
	if err := layerType(media); err != nil {
		return layer{}, err
	}
	i, err := im.find(d)
	if err != nil {
		return layer{}, err
	}
	digest, err := d.text("digest")
	return im.layer(i, digest), err
}

func layerType(media string) error {
	for _, f := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(media, "+"+f) || strings.HasSuffix(media, ".tar."+f) {
			return refuseCompressed(format{name: f, compressed: true})
		}
	}
	switch media {
	case mediaLayer, mediaLayerForeign, dockerLayer, dockerLayerForeign:
		return nil
	}
	return refuse(BadManifest, "a layer of type %q", shorten(media))
}

// find looks a descriptor's blob up and compares its size.
func (im *image) find(d object) (id, error) {
	digest, err := d.text("digest")
	if err != nil {
		return 0, err
	}
	name, err := blobName(digest)
	if err != nil {
		return 0, err
	}
	size, err := d.number("size")
	if err != nil {
		return 0, err
	}
	i, err := im.member(name)
	if err != nil {
		return 0, err
	}
	if got := im.members.at(i).size; got != size {
		return 0, refuse(DigestMismatch, "blob %s has %d bytes, should have %d", digest, got, size)
	}
	return i, nil
}

// blob is find with the content verified.
func (im *image) blob(ctx context.Context, d object) (id, error) {
	i, err := im.find(d)
	if err != nil {
		return 0, err
	}
	if im.members.at(i).size > im.opts.Limits.ManifestBytes {
		return 0, refuse(BadManifest, "a document of %d bytes, the limit is %d", im.members.at(i).size,
			im.opts.Limits.ManifestBytes)
	}
	got, err := im.digest(ctx, i)
	if err != nil {
		return 0, err
	}
	if want, _ := d.text("digest"); got != want {
		return 0, refuse(DigestMismatch, "blob %s has the digest %s", want, got)
	}
	return i, nil
}
