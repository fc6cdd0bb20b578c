package archive

import (
	"cmp"
	"strings"
)

// An index may list more than images: signatures, attestations, charts. Their manifests
// look like those of images. Sources: OCI image specification, manifest.md, "Guidelines
// for Artifact Usage"; cosign, specs/SIGNATURE_SPEC.md.

// referenceType is the annotation that BuildKit gives to attestations. Source: BuildKit,
// docs/attestations/attestation-storage.md.
const referenceType = "vnd.docker.reference.type"

// untyped stands for a type that is not there.
const untyped = "without a type"

// describedArtifact returns the type of the artifact that a descriptor is about, or "" if
// it may be about an image. platform is the descriptor's.
func describedArtifact(d object, platform imagePlatform) (string, error) {
	kind, err := d.stringAt("artifactType")
	if err != nil || kind != "" && !isImageConfig(kind) { // the referrers API names the configuration's
		return kind, err
	}
	annotations, err := d.objectAt("annotations")
	if err != nil {
		return "", err
	}
	kind, err = annotations.stringAt(referenceType)
	if kind == "" && platform.OS == "unknown" && platform.Architecture == "unknown" { // as BuildKit has it
		kind = "attestation-manifest"
	}
	return kind, err
}

// artifactInManifest returns the type of the artifact in a manifest, or "" for an image.
// The configuration of a signature of cosign is that of an image, but its layers are not.
func artifactInManifest(manifest object) (string, error) {
	kind, err := manifest.stringAt("artifactType")
	if err != nil || kind != "" && !isImageConfig(kind) {
		return kind, err
	}
	config, err := manifest.objectAt("config")
	if err != nil {
		return "", err
	}
	media, err := config.stringAt("mediaType")
	if err != nil || !isImageConfig(media) {
		return cmp.Or(media, untyped), err
	}
	return artifactInLayers(manifest)
}

// artifactInLayers returns the type of the first layer, if none is a layer of an image.
func artifactInLayers(manifest object) (string, error) {
	layers, err := manifest.objectsAt("layers")
	if err != nil {
		return "", err
	}
	var first string
	for _, d := range layers {
		media, err := d.stringAt("mediaType")
		if err != nil || isImageLayer(media) {
			return "", err
		}
		first = cmp.Or(first, media)
	}
	return first, nil
}

func isImageConfig(media string) bool { return media == mediaConfig || media == dockerConfig }

// isImageLayer reports whether a type is that of an image's layer, perhaps a compressed
// one.
func isImageLayer(media string) bool {
	return strings.HasPrefix(media, mediaLayers) || strings.HasPrefix(media, dockerLayers)
}
