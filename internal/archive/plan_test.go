package archive

import (
	"bytes"
	"slices"
	"testing"

	"imagemanager.internal/test/images"
)

// The plan has the layers of an image, lowest first, and none of a root file system.
func TestPlanHasTheLayers(t *testing.T) {
	lower := images.Tar(images.Root()...)
	upper := images.Tar(images.Entry{Name: "etc/more", Body: "more"})
	im := images.Image{Layers: [][]byte{lower, upper}}
	want := []Layer{
		{"sha256:" + images.Sum(lower), int64(len(lower))}, {"sha256:" + images.Sum(upper), int64(len(upper))},
	}
	for name, c := range map[string]struct {
		archive []byte
		want    []Layer
	}{
		"oci":    {images.Tar(im.OCI()...), want},
		"docker": {images.Tar(im.Docker()...), want},
		"plain":  {lower, nil},
	} {
		plan, err := Check(t.Context(), bytes.NewReader(c.archive), int64(len(c.archive)), Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(plan.Layers, c.want) {
			t.Errorf("%s: layers %+v, want %+v", name, plan.Layers, c.want)
		}
	}
}
