package archive

import (
	"context"
	"strings"
)

// docker reads what docker save writes: manifest.json names the configuration and the
// layers, lowest first. Since Docker 25 the same archive is an OCI layout as well; then
// both must be about the same image.
func (im *image) docker(ctx context.Context) (*composition, error) {
	if im.members.child(rootID, "manifest.json") == rootID {
		return nil, refuse(BadManifest, "no manifest.json: saved by a Docker before 1.10; load it and save it again")
	}
	entry, err := im.dockerManifest(ctx)
	if err != nil {
		return nil, err
	}
	configName, err := entry.text("Config")
	if err != nil {
		return nil, err
	}
	names, err := entry.texts("Layers")
	if err != nil {
		return nil, err
	}
	if configName == "" || len(names) == 0 {
		return nil, refuse(BadManifest, "manifest.json names no configuration or no layers")
	}
	if err := im.countLayers(len(names)); err != nil {
		return nil, err
	}
	comp := &composition{}
	if err := im.dockerConfig(ctx, comp, configName); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := im.follow(ctx); err != nil {
			return nil, err
		}
		i, err := im.member(name)
		if err != nil {
			return nil, err
		}
		comp.layers = append(comp.layers, im.layer(i, digestInName(name, "blobs/sha256/")))
	}
	return comp, im.agree(ctx, configName)
}

// dockerManifest is the one entry of manifest.json.
func (im *image) dockerManifest(ctx context.Context) (object, error) {
	i, err := im.member("manifest.json")
	if err != nil {
		return nil, err
	}
	data, err := im.read(i)
	if err != nil {
		return nil, err
	}
	v, err := parseDocument(ctx, data)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	switch {
	case !ok || len(list) == 0:
		return nil, refuse(BadManifest, "manifest.json lists no image")
	case len(list) > 1:
		r := refuse(MultipleImages, "manifest.json lists %d images", len(list))
		r.Remedy = "save one image per archive"
		return nil, r
	}
	entry, ok := list[0].(object)
	if !ok {
		return nil, refuse(BadManifest, "manifest.json lists something other than an image")
	}
	return entry, nil
}

// dockerConfig reads the configuration. Its name carries its digest: "<hex>.json",
// "blobs/sha256/<hex>", or "sha256:<hex>" from other tools; where it does not, the
// configuration is only as good as the archive.
func (im *image) dockerConfig(ctx context.Context, comp *composition, name string) error {
	i, err := im.member(name)
	if err != nil {
		return err
	}
	data, err := im.read(i)
	if err != nil {
		return err
	}
	got, err := im.digest(ctx, i)
	if err != nil {
		return err
	}
	if want := configDigest(name); want != "" && want != got {
		return refuse(DigestMismatch, "the configuration %q has the digest %s", shorten(name), got)
	}
	return comp.setConfig(ctx, name, data)
}

func configDigest(name string) string {
	return digestInName(strings.TrimSuffix(name, ".json"), "blobs/sha256/", "sha256:", "")
}

// digestInName is the digest that a member's name promises behind one of the prefixes, or
// empty.
func digestInName(name string, prefixes ...string) string {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok && isHex(rest) {
			return "sha256:" + rest
		}
	}
	return ""
}

// agree checks that an OCI index in the same archive, where it lists manifests, has one
// for this configuration. An image saved by its id has a list of null.
func (im *image) agree(ctx context.Context, configName string) error {
	if im.members.child(rootID, "oci-layout") == rootID || im.members.child(rootID, "index.json") == rootID {
		return nil
	}
	index, err := im.document(ctx, "index.json")
	if err != nil {
		return err
	}
	list, err := index.objects("manifests")
	if err != nil || len(list) == 0 {
		return err
	}
	want := configDigest(configName)
	found := false
	err = im.manifests(ctx, list, 0, func(m manifestRef) error {
		manifest, err := im.blobOnce(ctx, m.descriptor)
		if r := asRejection(err); r != nil && r.Reason == MissingBlob { // of another platform, not saved
			return nil
		}
		if err != nil || manifest == nil {
			return err
		}
		config, err := manifest.child("config")
		if err != nil {
			return err
		}
		digest, err := config.text("digest")
		found = found || digest == want
		return err
	})
	if err == nil && !found {
		err = refuse(BadManifest, "manifest.json and index.json are about different images")
	}
	return err
}
