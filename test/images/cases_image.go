package images

import (
	"bytes"
	"compress/gzip"
	"runtime"
	"slices"
	"strings"
)

// base and upper are the layers of a small image.
func base() []byte {
	return Tar(Root(Entry{Name: "srv/a/x", Body: "x"}, Entry{Name: "srv/b", Body: "b"})...)
}

func upper(entries ...Entry) []byte { return Tar(entries...) }

func two() Image {
	return Image{Layers: [][]byte{
		base(),
		upper(Entry{Name: "etc/hello", Body: "from above\n"}, Entry{Name: "opt/new", Body: "new"}),
	}}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err != nil || w.Close() != nil {
		return nil
	}
	return out.Bytes()
}

func dockerCases() []Case {
	shared := sharedLayer()
	manifest := func(list []Entry, body string) []byte {
		return Tar(Edit(list, "manifest.json", func(string) string { return body })...)
	}
	replace := func(list []Entry, old, now string) []byte {
		return Tar(Edit(list, "manifest.json", func(b string) string { return strings.Replace(b, old, now, 1) })...)
	}
	noManifests := two()
	noManifests.Index = func(o Object) { o["manifests"] = nil }
	return []Case{
		good("old", "docker", Tar(two().Docker()...)),
		good("25", "docker", Tar(two().Docker25()...)),
		good("25, saved by id", "docker", Tar(noManifests.Docker25()...)),
		good("repeated layer as link", "docker", Tar(shared.Docker()...)),
		good("repeated layer as blob", "docker", Tar(shared.Docker25()...)),
		good("manifest first", "docker", Tar(reversed(two().Docker())...)),
		refused("no manifest", "bad_manifest", Tar(Without(two().Docker(), "manifest.json")...)).says("1.10"),
		refused("null manifest", "bad_manifest", manifest(two().Docker(), "null")),
		refused("empty manifest", "bad_manifest", manifest(two().Docker(), "[]")),
		refused("manifest is not JSON", "bad_manifest", manifest(two().Docker(), "[{")),
		refused("manifest of the wrong kind", "bad_manifest", manifest(two().Docker(), `[{"Config":3,"Layers":[]}]`)),
		refused("key twice", "bad_manifest", replace(two().Docker(), `"Config"`, `"Config":"x","Config"`)),
		refused("key in another case", "bad_manifest", replace(two().Docker(), `"Config"`, `"config"`)),
		refused("data behind the manifest", "bad_manifest", replace(two().Docker(), `}]`, `}] []`)),
		refused("nested too deep", "bad_manifest",
			manifest(two().Docker(), strings.Repeat("[", 100)+strings.Repeat("]", 100))),
		refused("too many values", "bad_manifest", manifest(two().Docker(), "["+strings.Repeat("0,", 60_000)+"0]")),
		refused("two images", "multiple_images", replace(two().Docker(), `}]`, `},{}]`)),
		good("two names for one image, listed twice", "docker",
			Tar(Edit(two().Docker(), "manifest.json", func(b string) string {
				entry := strings.Trim(b, "[]")
				return "[" + entry + "," + strings.Replace(entry, "test:latest", "test:1", 1) + "]"
			})...)),
		refused("layer missing", "missing_blob",
			replace(two().Docker(), `/layer.tar"]`, `/layer.tar","none/layer.tar"]`)),
		attack("layer name climbs", "dotdot_name",
			replace(two().Docker(), `/layer.tar"]`, `/layer.tar","../../etc/passwd"]`)),
		refused("layer name is absolute", "absolute_name",
			replace(two().Docker(), `/layer.tar"]`, `/layer.tar","/etc/passwd"]`)).says("save it again"),
	}
}

// sharedLayer is an image in which one layer occurs twice.
func sharedLayer() Image {
	return Image{Layers: [][]byte{base(), upper(Entry{Name: "x", Body: "1"}), base()}}
}

// dockerLayerCases are about the layers of docker save archives.
func dockerLayerCases() []Case {
	gz := Image{Layers: [][]byte{gzipped(base())}, DiffIDs: []string{"sha256:" + Sum(base())}}
	shared := sharedLayer()
	badDiff := two()
	badDiff.DiffIDs = []string{"sha256:" + Sum(base()), "sha256:" + Sum([]byte("other"))}
	fewer := two()
	fewer.DiffIDs = []string{"sha256:" + Sum(base())}
	other := two()
	other.Config = func(o Object) { o["author"] = "somebody else" }
	layers := make([][]byte, 129)
	for i := range layers {
		layers[i] = upper(Entry{Name: "etc/x", Body: "x"})
	}
	return []Case{
		refused("layer is a link to elsewhere", "bad_manifest", Tar(relinked(shared.Docker(), "/etc/shadow")...)),
		refused("layer is a climbing link", "bad_manifest",
			Tar(relinked(shared.Docker(), "../../../"+strings.Repeat("a", 64)+"/layer.tar")...)),
		refused("layer is a link to nothing", "missing_blob",
			Tar(relinked(shared.Docker(), "../"+strings.Repeat("a", 64)+"/layer.tar")...)),
		refused("compressed layer", "compressed:gzip", Tar(gz.Docker()...)).says("layer 1"),
		refused("compressed blob", "compressed:gzip", Tar(gz.Docker25()...)),
		attack("layer without its DiffID", "digest_mismatch", Tar(badDiff.Docker()...)).says("layer 2"),
		attack("changed configuration", "digest_mismatch",
			Tar(Edit(two().Docker(), Sum(two().config())+".json", func(b string) string { return b + " " })...)),
		attack("changed layer", "digest_mismatch",
			Tar(Edit(two().Docker25(), "blobs/sha256/"+Sum(base()),
				func(b string) string { return b + strings.Repeat("\x00", 512) })...)),
		refused("fewer DiffIDs than layers", "bad_manifest", Tar(fewer.Docker()...)),
		refused("129 layers", "too_many_layers", Tar(Image{Layers: layers}.Docker25()...)),
		refused("manifest and index disagree", "bad_manifest",
			Tar(unique(append(other.OCI(), two().Docker25()...))...)),
		strictly("escape in a layer", "symlink_escapes", 1,
			Tar(Image{Layers: [][]byte{base(), upper(Entry{Name: "l", Link: "../x"})}}.Docker()...)).shaped("docker"),
		attack("climbing name in a layer", "dotdot_name",
			Tar(Image{Layers: [][]byte{base(), upper(Entry{Name: "../x", Body: "x"})}}.Docker25()...)).says("layer 2"),
		refused("manifest.json twice", "duplicate",
			Tar(append(two().Docker(), Entry{Name: "manifest.json", Body: "[]"})...)),
		attack("attack in a layer, behind a member twice", "dotdot_name",
			Tar(append(Image{Layers: [][]byte{base(), upper(Entry{Name: "../x", Body: "x"})}}.Docker25(),
				Entry{Name: "oci-layout", Body: layoutFile})...)),
		refused("layers without root file system", "layout",
			Tar(Image{Layers: [][]byte{upper(Entry{Name: "x", Body: "x"})}}.Docker()...)),
		attack("member name climbs", "dotdot_name", Tar(append(two().Docker(), Entry{Name: "../x", Body: "x"})...)),
	}
}

func reversed(list []Entry) []Entry {
	slices.Reverse(list)
	return list
}

// relinked changes the target of the links between layers.
func relinked(list []Entry, target string) []Entry {
	for i := range list {
		if list[i].Link != "" {
			list[i].Link = target
		}
	}
	return list
}

// manifestEdit is a layout with its manifest changed.
func manifestEdit(edit func(Object)) []byte {
	im := two()
	im.Manifest = edit
	return Tar(im.OCI()...)
}

// indexEdit is a layout with the list of its index changed.
func indexEdit(edit func(list []Object) any) []byte {
	im := two()
	im.Index = func(o Object) {
		if list, ok := o["manifests"].([]Object); ok {
			o["manifests"] = edit(list)
		}
	}
	return Tar(im.OCI()...)
}

// firstLayer is a layout with the descriptor of its first layer changed.
func firstLayer(edit func(Object)) []byte {
	return manifestEdit(func(o Object) {
		if list, ok := o["layers"].([]Object); ok {
			edit(list[0])
		}
	})
}

// platform names the platform of the index's first image.
func platform(os, arch string) func(list []Object) any {
	return func(list []Object) any {
		list[0]["platform"] = Object{"os": os, "architecture": arch}
		return list
	}
}

// media is a layout with layers of another type.
func media(m string) []byte {
	im := two()
	im.Media = m
	return Tar(im.OCI()...)
}

func ociCases() []Case { return append(ociAccepted(), ociRefused()...) }

func ociAccepted() []Case {
	attestation := Object{
		"mediaType": mediaManifest, "digest": "sha256:" + strings.Repeat("a", 64), "size": 3,
		"platform": Object{"os": "unknown", "architecture": "unknown"},
	}
	foreign := Object{
		"mediaType": mediaManifest, "digest": "sha256:" + strings.Repeat("b", 64), "size": 3,
		"platform": Object{"os": "linux", "architecture": "s390x"},
	}
	return []Case{
		good("layout", "oci", Tar(two().OCI()...)),
		good("layout, reversed", "oci", Tar(reversed(two().OCI())...)),
		good("platform named", "oci", indexEdit(platform("linux", runtime.GOARCH))),
		good("attestation beside", "oci", indexEdit(func(l []Object) any { return append(l, attestation) })),
		good("another platform beside", "oci", indexEdit(func(l []Object) any {
			l[0]["platform"] = Object{"os": "linux", "architecture": runtime.GOARCH}
			return append(l, foreign)
		})),
		good("index in an index", "oci", nestedIndex(1)),
		good("the same image many times", "oci", indexEdit(func(l []Object) any { return slices.Repeat(l, 100) })),
		good("foreign layer that is there", "oci", media("application/vnd.oci.image.layer.nondistributable.v1.tar")),
		good("docker's types", "oci", media("application/vnd.docker.image.rootfs.diff.tar")),
	}
}

func ociRefused() []Case {
	gz := Image{Layers: [][]byte{gzipped(base())}, DiffIDs: []string{"sha256:" + Sum(base())}}
	return []Case{
		refused("indexes without end", "manifest_limit", Tar(Nested(5_000, 5)...)).says("10000 things"),
		refused("indexes nested too deep", "bad_manifest", nestedIndex(6)),
		refused("other platform", "no_platform", indexEdit(platform("linux", "s390x"))),
		refused("no images", "no_platform", indexEdit(func([]Object) any { return []Object{} })),
		refused("two images", "multiple_images", indexEdit(func(l []Object) any {
			return append(l, Object{
				"mediaType": mediaManifest, "digest": "sha256:" + strings.Repeat("c", 64),
				"size": 3,
			})
		})),
		refused("layout version", "bad_manifest",
			Tar(Edit(two().OCI(), "oci-layout", func(string) string { return `{"imageLayoutVersion":"2.0.0"}` })...)),
		refused("layout is not JSON", "bad_manifest",
			Tar(Edit(two().OCI(), "oci-layout", func(string) string { return "1.0.0" })...)),
		refused("index is a list", "bad_manifest",
			Tar(Edit(two().OCI(), "index.json", func(string) string { return "[]" })...)),
		refused("unknown type in the index", "bad_manifest",
			indexEdit(func(l []Object) any { l[0]["mediaType"] = "text/html"; return l })).says("text/html"),
		good("plain layers of gzip's type", "oci", media("application/vnd.oci.image.layer.v1.tar+gzip")),
		good("plain layers of zstd's type", "oci", media("application/vnd.oci.image.layer.v1.tar+zstd")),
		good("plain layers of docker's gzip type", "oci", media("application/vnd.docker.image.rootfs.diff.tar.gzip")),
		refused("layers of two suffixes", "bad_manifest", media("application/vnd.oci.image.layer.v1.tar+gzip+gzip")),
		refused("gzip layer in disguise", "compressed:gzip", Tar(gz.OCI()...)),
		refused("unknown layer type", "bad_manifest", media("application/vnd.example")),
		refused("digest of another kind", "bad_manifest",
			firstLayer(func(o Object) { o["digest"] = "sha512:" + strings.Repeat("a", 128) })),
		refused("digest that is a path", "bad_manifest",
			firstLayer(func(o Object) { o["digest"] = "sha256:../../../etc/passwd" })),
		refused("digest in upper case", "bad_manifest",
			firstLayer(func(o Object) { o["digest"] = "sha256:" + strings.Repeat("A", 64) })),
		refused("missing layer", "missing_blob",
			firstLayer(func(o Object) { o["digest"] = "sha256:" + strings.Repeat("a", 64) })),
		refused("foreign layer that is not there", "missing_blob", firstLayer(func(o Object) {
			o["digest"], o["urls"] = "sha256:"+strings.Repeat("a", 64), []string{"http://169.254.169.254/"}
		})),
		attack("wrong layer size", "digest_mismatch", firstLayer(func(o Object) { o["size"] = 7 })),
		attack("changed layer", "digest_mismatch",
			Tar(Edit(two().OCI(), "blobs/sha256/"+Sum(base()),
				func(b string) string { return strings.Replace(b, "hello\n", "jello\n", 1) })...)),
		attack("changed configuration", "digest_mismatch",
			Tar(Edit(two().OCI(), "blobs/sha256/"+Sum(two().config()),
				func(b string) string { return strings.Replace(b, "linux", "LINUX", 1) })...)),
		refused("negative size", "bad_manifest", firstLayer(func(o Object) { o["size"] = -1 })),
	}
}

// nestedIndex is a layout whose index lies in n others.
func nestedIndex(n int) []byte {
	im := two()
	var extra []Entry
	im.Index = func(o Object) {
		for range n {
			inner := encode(Object{"schemaVersion": 2, "manifests": o["manifests"]})
			extra = append(extra, blob(inner))
			o["manifests"] = []Object{descriptor(mediaIndex, inner)}
		}
	}
	return Tar(append(im.OCI(), extra...)...)
}
