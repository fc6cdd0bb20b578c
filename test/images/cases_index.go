package images

import (
	"maps"
	"runtime"
	"slices"
	"strings"
)

// listed is a manifest in an index, with its descriptor and the blobs that it names.
type listed struct {
	descriptor Object
	blobs      []Entry
}

// listing is a layout whose index lists these manifests, in this order.
func listing(all ...listed) []byte {
	var manifests []Object
	var blobs []Entry
	for _, l := range all {
		manifests = append(manifests, l.descriptor)
		blobs = append(blobs, l.blobs...)
	}
	index := encode(Object{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests})
	return Tar(unique(append([]Entry{{Name: "oci-layout", Body: layoutFile}, {Name: "index.json", Body: string(index)}},
		blobs...))...)
}

// described adds fields to the descriptor.
func (l listed) described(fields Object) listed {
	l.descriptor = maps.Clone(l.descriptor)
	maps.Copy(l.descriptor, fields)
	return l
}

// manifest is a manifest with these blobs, as it is listed.
func manifest(o Object, blobs ...[]byte) listed {
	b := encode(o)
	l := listed{descriptor: descriptor(mediaManifest, b), blobs: []Entry{blob(b)}}
	for _, b := range blobs {
		l.blobs = append(l.blobs, blob(b))
	}
	return l
}

// imageFor is an image with the file srv/name, for a platform.
func imageFor(name, os, architecture string) listed {
	im := Image{
		Layers: [][]byte{base(), upper(Entry{Name: "srv/" + name, Body: "x"})},
		Config: func(o Object) {
			o["os"], o["architecture"] = os, architecture
		},
	}
	return im.listed()
}

func (im Image) listed() listed {
	var l listed
	im.Index = func(o Object) {
		if list, ok := o["manifests"].([]Object); ok {
			l.descriptor = list[0]
		}
	}
	l.blobs = slices.DeleteFunc(im.OCI(), func(e Entry) bool { return !strings.HasPrefix(e.Name, "blobs/sha256/") })
	return l
}

// artifact is a manifest with a configuration and a layer of these types.
func artifact(config, layer string) listed {
	data := []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:` + Sum(base()) + `"]}}`)
	payload := []byte(`{"critical":{}}`)
	return manifest(Object{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": descriptor(config, data),
		"layers": []Object{descriptor(layer, payload)},
	}, data, payload)
}

const (
	emptyConfig = "application/vnd.oci.empty.v1+json"
	simpleSign  = "application/vnd.dev.cosign.simplesigning.v1+json"
	sigstore    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	inToto      = "application/vnd.in-toto+json"
	helmChart   = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

	artifactManifest = "application/vnd.oci.artifact.manifest.v1+json"
)

// artifactCases are layouts with things that are no images.
func artifactCases() []Case {
	plain := two().listed()
	absent := listed{descriptor: descriptor(mediaManifest, []byte("absent"))}
	changed := artifact(emptyConfig, sigstore)
	changed.blobs[0].Body = strings.Replace(changed.blobs[0].Body, "2", "3", 1)
	typed := manifest(Object{
		"schemaVersion": 2, "artifactType": sigstore, "config": descriptor(mediaConfig, []byte("{}")),
		"layers": []Object{descriptor(mediaLayer, base())},
	}, []byte("{}"), base())
	attestation := Object{"annotations": Object{"vnd.docker.reference.type": "attestation-manifest"}}
	unknown := Object{"platform": Object{"os": "unknown", "architecture": "unknown"}}
	taken := func(name string, beside listed) []Case {
		return []Case{
			good(name+" beside the image", "oci", listing(plain, beside)),
			good(name+" before the image", "oci", listing(beside, plain)),
			refused(name+" alone", "bad_manifest", listing(beside)).says("an artifact"),
		}
	}
	return slices.Concat(
		taken("artifact by its descriptor", absent.described(Object{"artifactType": sigstore})),
		taken("artifact by its manifest", typed),
		taken("artifact with an empty configuration", artifact(emptyConfig, sigstore)),
		taken("chart", artifact("application/vnd.cncf.helm.config.v1+json", helmChart)),
		taken("signature of cosign", artifact(mediaConfig, simpleSign)),
		taken("attestation by its annotation", absent.described(attestation)),
		taken("attestation by its platform", absent.described(unknown)),
		taken("attestation by its layers", artifact(mediaConfig, inToto)),
		taken("manifest of another type", absent.described(Object{"mediaType": artifactManifest})),
		taken("something without a type", absent.described(Object{"mediaType": ""})),
		taken("manifest without a type", manifest(Object{"schemaVersion": 2})),
		[]Case{
			good("image whose type is named by its configuration's", "oci",
				listing(plain.described(Object{"artifactType": mediaConfig}))),
			attack("artifact that is changed", "digest_mismatch", listing(plain, changed)),
		},
	)
}

// platformCases are images that say in one place or two what they run on.
func platformCases() []Case {
	here := func(name string) listed { return imageFor(name, "linux", runtime.GOARCH) }
	other := imageFor("other", "linux", "s390x")
	saysHere := Object{"platform": Object{"os": "linux", "architecture": runtime.GOARCH}}
	saysOther := Object{"platform": Object{"os": "linux", "architecture": "s390x"}}
	windows := imageFor("x", "windows", runtime.GOARCH)
	docker := func(os, architecture string) []byte {
		im := two()
		im.Config = func(o Object) { o["os"], o["architecture"] = os, architecture }
		return Tar(im.Docker25()...)
	}
	return []Case{
		good("platform in the configuration", "oci", listing(other, here("here"))).leaves("srv/here !srv/other"),
		good("platform nowhere", "oci", listing(imageFor("x", "", ""))),
		good("no platform in docker's configuration", "docker", docker("", "")),
		refused("configuration for another architecture", "no_platform", listing(other)).says(`"linux/s390x"`),
		refused("configuration for another system", "no_platform", listing(windows)).says(`"windows/`),
		refused("docker's configuration for another architecture", "no_platform", docker("linux", "s390x")).
			says(`"linux/s390x"`),
		refused("docker's configuration for another system", "no_platform", docker("windows", runtime.GOARCH)),
		refused("descriptor for this platform, configuration for another", "no_platform",
			listing(other.described(saysHere))),
		refused("descriptor for another platform", "no_platform", listing(here("x").described(saysOther))),
		good("two names for one manifest", "oci", listing(here("x"), here("x").described(saysHere))),
		refused("two images for this platform", "multiple_images", listing(here("x"), here("y").described(saysHere))),
		refused("manifest for this platform not there", "missing_blob",
			listing(listed{descriptor: here("x").descriptor}, other)),
	}
}
