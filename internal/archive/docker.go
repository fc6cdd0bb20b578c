package archive

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// readDocker reads an archive of docker save. manifest.json names the configuration and
// the layers, lowest first. Since Docker 25 the same archive is also an OCI layout; then
// both must describe the same image.
func (im *imageReader) readDocker(ctx context.Context) (*imageSpec, error) {
	if !im.hasMember("manifest.json") {
		r := refuse(BadManifest, "no manifest.json: saved by a Docker before 1.10")
		r.Remedy = "load it into a current Docker and save it again"
		return nil, r
	}
	entry, err := im.readDockerManifest(ctx)
	if err != nil {
		return nil, err
	}
	configName, err := entry.stringAt("Config")
	if err != nil {
		return nil, err
	}
	names, err := entry.stringsAt("Layers")
	if err != nil {
		return nil, err
	}
	if configName == "" || len(names) == 0 {
		return nil, refuse(BadManifest, "manifest.json names no configuration or no layers")
	}
	if err := im.checkLayerCount(len(names)); err != nil {
		return nil, err
	}
	spec := &imageSpec{}
	if err := im.readDockerConfig(ctx, spec, configName); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := im.countDescriptor(ctx); err != nil {
			return nil, err
		}
		i, err := im.member(name)
		if err != nil {
			return nil, err
		}
		spec.layers = append(spec.layers, im.layer(i, digestInName(name, "blobs/sha256/")))
	}
	return spec, im.checkIndexMatches(ctx, configName)
}

// readDockerManifest returns the entry of manifest.json. There are several if the image
// has several names and its writer repeats it for each.
func (im *imageReader) readDockerManifest(ctx context.Context) (object, error) {
	i, err := im.member("manifest.json")
	if err != nil {
		return nil, err
	}
	data, err := im.readDocument(i)
	if err != nil {
		return nil, err
	}
	v, err := parseStrictJSON(ctx, data)
	if err != nil {
		return nil, err
	}
	list, _ := v.([]any)
	if len(list) == 0 {
		return nil, im.refuseManifest(v)
	}
	first, ok := list[0].(object)
	if !ok {
		return nil, refuse(BadManifest, "manifest.json lists something other than an image")
	}
	if slices.ContainsFunc(list[1:], func(other any) bool { return !sameImage(first, other) }) {
		r := refuse(MultipleImages, "manifest.json lists %d images", len(list))
		r.Remedy = "copy one of them: " + skopeoCopy("docker-archive:IN:@0") + ", the first being number 0"
		return nil, r
	}
	if im.source = "docker-archive:IN"; len(list) > 1 {
		im.source += ":@0"
	}
	return first, nil
}

// refuseManifest refuses a manifest.json that lists no image.
func (im *imageReader) refuseManifest(v any) *Rejection {
	if _, ok := v.(object); !ok {
		return refuse(BadManifest, "manifest.json lists no image")
	}
	r := refuse(BadManifest, "manifest.json is the manifest of an image, not a list as docker save writes it")
	if im.hasMember("version") {
		r.Detail = "a directory that skopeo wrote (dir:), not an archive of docker save"
		r.Remedy = "copy it into such an archive: " + skopeoCopy("dir:DIR") + ", DIR being that directory"
	}
	return r
}

// sameImage reports whether two entries of manifest.json differ in their names at most.
func sameImage(a object, b any) bool {
	other, ok := b.(object)
	return ok && reflect.DeepEqual(a["Config"], other["Config"]) && reflect.DeepEqual(a["Layers"], other["Layers"])
}

// readDockerConfig reads the configuration and compares it with the digest in its name:
// "<hex>.json", "blobs/sha256/<hex>", or "sha256:<hex>" from other tools. Without a
// digest in its name nothing proves the configuration.
func (im *imageReader) readDockerConfig(ctx context.Context, spec *imageSpec, name string) error {
	i, err := im.member(name)
	if err != nil {
		return err
	}
	data, err := im.readDocument(i)
	if err != nil {
		return err
	}
	got, err := im.digest(ctx, i)
	if err != nil {
		return err
	}
	if want := configDigest(name); want != "" && want != got {
		return refuse(DigestMismatch, "the configuration %q has the digest %s", fstree.TruncateName(name), got)
	}
	if err := spec.setConfig(ctx, name, data); err != nil {
		return err
	}
	if !spec.platform.fits(im.opts.Platform) {
		return refusePlatform(im.opts.Platform, spec.platform.String())
	}
	return nil
}

func configDigest(name string) string {
	return digestInName(strings.TrimSuffix(name, ".json"), "blobs/sha256/", "sha256:", "")
}

// digestInName returns the digest in a member's name, after one of the prefixes, or "".
func digestInName(name string, prefixes ...string) string {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok && isHex(rest) {
			return "sha256:" + rest
		}
	}
	return ""
}

// checkIndexMatches checks that an OCI index in the same archive lists the manifest of
// this configuration. An image saved by its id has an index with null for its list.
func (im *imageReader) checkIndexMatches(ctx context.Context, configName string) error {
	if !im.hasMember("oci-layout") || !im.hasMember("index.json") {
		return nil
	}
	index, err := im.memberDocument(ctx, "index.json")
	if err != nil {
		return err
	}
	list, err := index.objectsAt("manifests")
	if err != nil || len(list) == 0 {
		return err
	}
	want := configDigest(configName)
	found := false
	err = im.eachManifest(ctx, list, 0, func(m manifestRef) error {
		if m.artifact != "" {
			return nil
		}
		manifest, err := im.blobOnce(ctx, m.descriptor)
		if r := asRejection(err); r != nil && r.Reason == MissingBlob { // of another platform, not saved
			return nil
		}
		if err != nil || manifest == nil {
			return err
		}
		config, err := manifest.objectAt("config")
		if err != nil {
			return err
		}
		digest, err := config.stringAt("digest")
		found = found || digest == want
		return err
	})
	if err == nil && !found {
		err = refuse(BadManifest, "manifest.json and index.json are about different images")
	}
	return err
}
