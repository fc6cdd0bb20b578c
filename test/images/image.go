package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
)

// Image is an image in layers, to be put into one of the forms that tools write. The
// functions change a document before it is encoded, so that all digests above it are
// right.
type Image struct {
	Layers   [][]byte // lowest first
	Files    []File   // further layers, which lie in files, above the others; their archive is for Write
	DiffIDs  []string // instead of the layers' own
	Media    string   // type of the layers, OCI's by default
	Config   func(Object)
	Manifest func(Object)
	Index    func(Object)
}

// Object is a JSON object.
type Object = map[string]any

const (
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	layoutFile    = `{"imageLayoutVersion":"1.0.0"}`
)

// Sum is the SHA-256 of b in hex.
func Sum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Appendf(nil, "not encoded: %v", err)
	}
	return b
}

// blob is an entry named by its content.
func blob(b []byte) Entry { return Entry{Name: "blobs/sha256/" + Sum(b), Body: string(b)} }

// descriptor describes a blob.
func descriptor(media string, b []byte) Object {
	return Object{"mediaType": media, "digest": "sha256:" + Sum(b), "size": len(b)}
}

func edited(o Object, edit func(Object)) []byte {
	if edit != nil {
		edit(o)
	}
	return encode(o)
}

func (im Image) config() []byte {
	ids := im.DiffIDs
	if ids == nil {
		for _, l := range im.layers() {
			ids = append(ids, "sha256:"+l.SHA256)
		}
	}
	return edited(Object{
		"architecture": runtime.GOARCH, "os": "linux", "config": Object{"Cmd": []string{"/bin/sh"}},
		"rootfs": Object{"type": "layers", "diff_ids": ids},
	}, im.Config)
}

// OCI is an OCI image layout.
func (im Image) OCI() []Entry {
	config := im.config()
	media := im.Media
	if media == "" {
		media = mediaLayer
	}
	blobs, layers := []Entry{blob(config)}, []Object{}
	for _, l := range im.layers() {
		layers = append(layers, Object{"mediaType": media, "digest": "sha256:" + l.SHA256, "size": l.Size})
		blobs = append(blobs, l.entry("blobs/sha256/"+l.SHA256))
	}
	manifest := edited(Object{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": descriptor(mediaConfig, config),
		"layers": layers,
	}, im.Manifest)
	index := edited(Object{
		"schemaVersion": 2, "mediaType": mediaIndex,
		"manifests": []Object{descriptor(mediaManifest, manifest)},
	}, im.Index)
	return append([]Entry{
		{Name: "oci-layout", Body: layoutFile},
		{Name: "index.json", Body: string(index)},
		{Name: "blobs/"},
		{Name: "blobs/sha256/"},
		blob(manifest),
	}, unique(blobs)...)
}

// Docker25 is what docker save writes since version 25: an OCI layout with a
// manifest.json, which comes last.
func (im Image) Docker25() []Entry {
	config := im.config()
	var names []string
	for _, l := range im.layers() {
		names = append(names, "blobs/sha256/"+l.SHA256)
	}
	return append(im.OCI(), manifestJSON("blobs/sha256/"+Sum(config), names))
}

// Docker is what docker save wrote before: a directory for each layer, and a link for a
// layer that is there already.
func (im Image) Docker() []Entry {
	config := im.config()
	list := []Entry{{Name: Sum(config) + ".json", Body: string(config)}}
	seen := map[string]string{}
	var names []string
	for i, l := range im.layers() {
		dir := Sum(fmt.Append(nil, i, l.SHA256))
		names = append(names, dir+"/layer.tar")
		list = append(list, Entry{Name: dir + "/"}, Entry{Name: dir + "/VERSION", Body: "1.0"},
			Entry{Name: dir + "/json", Body: "{}"})
		if first := seen[l.SHA256]; first != "" {
			list = append(list, Entry{Name: dir + "/layer.tar", Link: "../" + first + "/layer.tar"})
			continue
		}
		seen[l.SHA256] = dir
		list = append(list, l.entry(dir+"/layer.tar"))
	}
	return append(list, manifestJSON(Sum(config)+".json", names), Entry{Name: "repositories", Body: "{}"})
}

func manifestJSON(config string, layers []string) Entry {
	return Entry{
		Name: "manifest.json",
		Body: string(encode([]Object{{"Config": config, "RepoTags": []string{"test:latest"}, "Layers": layers}})),
	}
}

// unique drops entries whose name is there already: equal layers are one blob.
func unique(list []Entry) []Entry {
	seen := map[string]bool{}
	var kept []Entry
	for _, e := range list {
		if !seen[e.Name] {
			seen[e.Name] = true
			kept = append(kept, e)
		}
	}
	return kept
}

// Edit changes the bodies of the entries whose name begins with prefix.
func Edit(list []Entry, prefix string, change func(body string) string) []Entry {
	for i := range list {
		if strings.HasPrefix(list[i].Name, prefix) {
			list[i].Body = change(list[i].Body)
		}
	}
	return list
}

// Without leaves out the entries whose name begins with prefix.
func Without(list []Entry, prefix string) []Entry {
	var kept []Entry
	for _, e := range list {
		if !strings.HasPrefix(e.Name, prefix) {
			kept = append(kept, e)
		}
	}
	return kept
}
