package archive

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"imagemanager.internal/test/images"
)

// variantsOf is an OCI layout with an image for each of the platforms, such as
// linux/amd64/v2. The image has the file srv/N, N being its place in the list. Where an
// entry has a slash at its end, the descriptor says nothing.
func variantsOf(platforms ...string) []byte {
	list := []images.Entry{{Name: "oci-layout", Body: `{"imageLayoutVersion":"1.0.0"}`}}
	var descriptors []string
	for n, p := range platforms {
		part := strings.Split(strings.Trim(p, "/")+"//", "/")
		im := images.Image{
			Layers: [][]byte{images.Tar(images.Root(images.Entry{Name: fmt.Sprintf("srv/%d", n)})...)},
			Config: func(o images.Object) { o["os"], o["architecture"], o["variant"] = part[0], part[1], part[2] },
		}
		var manifest string
		for _, e := range im.OCI() {
			if strings.HasPrefix(e.Name, "blobs/sha256/") && strings.Contains(e.Body, `"mediaType"`) {
				manifest = e.Body
			}
			if e.Body != "" && e.Name != "oci-layout" && e.Name != "index.json" {
				list = append(list, e)
			}
		}
		d := describe(mediaManifest, []byte(manifest))
		if !strings.HasSuffix(p, "/") {
			d = fmt.Sprintf(`%s,"platform":{"os":%q,"architecture":%q,"variant":%q}}`, strings.TrimSuffix(d, "}"),
				part[0], part[1], part[2])
		}
		descriptors = append(descriptors, d)
	}
	return images.Tar(append(list, images.Entry{Name: "index.json", Body: string(indexOf(descriptors...))})...)
}

// Of several variants of an architecture the one is taken that most machines run,
// whether the descriptors or the configurations name them.
func TestVariants(t *testing.T) {
	for _, c := range []struct {
		machine, platforms string
		want               string // a path in the tree, or a reason's code
	}{
		{"amd64", "linux/amd64/v3 linux/amd64/v2 linux/amd64", "srv/2"},
		{"amd64", "linux/amd64/v3 linux/amd64/v1 linux/amd64/v2", "srv/1"},
		{"amd64", "linux/amd64/v3/ linux/amd64/v2/", "srv/1"},
		{"amd64", "linux/amd64/v4 linux/amd64/v3/", "srv/1"},
		{"amd64", "linux/amd64/v9 linux/amd64/v3", "srv/1"},
		{"amd64", "linux/x86_64/ linux/aarch64/", "srv/0"},
		{"amd64", "linux/amd64/v1 linux/amd64", "multiple_images"},
		{"amd64", "linux/386 linux/arm64", "no_platform"},
		{"arm", "linux/arm/v8 linux/arm/v5 linux/arm/v6 linux/arm/v7", "srv/3"},
		{"arm", "linux/arm/8/ linux/arm/5/ linux/arm/6/", "srv/2"},
		{"arm", "linux/armel linux/armhf", "srv/1"},
		{"arm64", "linux/arm/v8 linux/arm64/v9 linux/arm64/v8", "srv/2"},
		{"arm64", "linux/amd64 linux/arm64/8", "srv/1"},
		{"arm64", "windows/arm64 linux/arm/v7", "no_platform"},
	} {
		b := variantsOf(strings.Fields(c.platforms)...)
		opts := Options{Platform: Platform{OS: "linux", Architecture: c.machine}}
		plan, err := Check(t.Context(), bytes.NewReader(b), int64(len(b)), opts)
		if err != nil {
			if got := outcome(t, err); got != c.want {
				t.Errorf("%s of %s: %s, want %s: %v", c.machine, c.platforms, got, c.want, err)
			}
			continue
		}
		t.Log(c.machine, "of", c.platforms)
		checkPaths(t, images.Case{Has: c.want}, plan)
	}
}
