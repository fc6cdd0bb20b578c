package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/test/images"
)

// blobs are entries named by their digests.
func blobs(docs ...[]byte) []images.Entry {
	list := []images.Entry{{Name: "oci-layout", Body: `{"imageLayoutVersion":"1.0.0"}`}}
	for _, doc := range docs {
		list = append(list, images.Entry{Name: "blobs/sha256/" + images.Sum(doc), Body: string(doc)})
	}
	return list
}

// describe is a descriptor of a document.
func describe(media string, doc []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d}`, media, images.Sum(doc), len(doc))
}

func indexOf(descriptors ...string) []byte {
	return []byte(`{"schemaVersion":2,"manifests":[` + strings.Join(descriptors, ",") + `]}`)
}

// dockerBeside is a docker save archive beside an OCI layout that names each of these
// manifests n times.
func dockerBeside(n int, manifests ...[]byte) []images.Entry {
	list := images.Image{Layers: [][]byte{images.Tar(images.Root()...)}}.Docker()
	list = append(list, blobs(manifests...)...)
	var named []string
	for _, m := range manifests {
		named = append(named, slices.Repeat([]string{describe(mediaManifest, m)}, n)...)
	}
	return append(list, images.Entry{Name: "index.json", Body: string(indexOf(named...))})
}

// otherManifest is a large manifest of an image whose configuration is another.
func otherManifest(n, values int) []byte {
	return fmt.Appendf(nil, `{"config":{"digest":"sha256:%064x"},"x":[%s0]}`, n, strings.Repeat("0,", values))
}

// dockerOf is a docker save archive whose manifest.json lists an image, then n more.
func dockerOf(names, n int, more string) []images.Entry {
	entry := `{"Config":"c.json","Layers":["l"` + strings.Repeat(`,"l"`, names-1) + `]}`
	return []images.Entry{
		{Name: "manifest.json", Body: "[" + entry + strings.Repeat(","+more, n) + "]"},
		{Name: "c.json", Body: "{}"},
		{Name: "l", Body: "x"},
	}
}

// repeated is an image of one layer that it names n times over a root file system. The
// layer's end is so many zeros.
func repeated(n, zeros int) []images.Entry {
	layers := [][]byte{images.Tar(images.Root()...)}
	upper := append(images.Tar(images.Entry{Name: "etc/x"}), make([]byte, zeros)...)
	for range n {
		layers = append(layers, upper)
	}
	return images.Image{Layers: layers}.OCI()
}

// An image's documents may name each other, and its layers, as often as they like: what
// is done for it is bounded. It is refused by a rule of its own where it is not harmless.
func TestDocumentBombs(t *testing.T) {
	other := otherManifest(1, 49_000)
	blanks := bytes.Repeat([]byte(" "), 3_900_000)
	others := many(5, func(i int) []byte { return append(otherManifest(i, 40_000), blanks...) })
	cycle := string(indexOf(fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064x","size":512}`, mediaIndex, 1)))
	inCycle := append(blobs(), images.Entry{Name: "index.json", Body: cycle},
		images.Entry{Name: fmt.Sprintf("blobs/sha256/%064x", 1), Body: fmt.Sprintf("%-512s", cycle)})
	for _, c := range []struct {
		name   string
		list   []images.Entry
		limits Limits
		want   Reason
		says   string
	}{
		{"12,000 times, four levels", images.Nested(12_000, 5), Limits{}, ManifestLimit, "10000 things"},
		{"5,000 times, four levels", images.Nested(5_000, 5), Limits{}, ManifestLimit, "10000 things"},
		{"30 times, four levels", images.Nested(30, 5), Limits{}, BadManifest, "an artifact"},
		{"30 times, five levels", images.Nested(30, 6), Limits{}, BadManifest, "more than 4 deep"},
		{"a cycle", inCycle, Limits{}, DigestMismatch, ""},
		{"docker, one manifest 12,000 times", dockerBeside(12_000, other), Limits{}, ManifestLimit, "10000 things"},
		{"docker, one manifest 9,000 times", dockerBeside(9_000, other), Limits{}, BadManifest, "different images"},
		{"docker, five manifests of 4 MB", dockerBeside(1, others...), Limits{}, ManifestLimit, "16777216 bytes"},
		{"docker, 9,001 images", dockerOf(1, 9_000, `{"Config":"c.json"}`), Limits{}, MultipleImages, "9001"},
		{
			"docker, one image 9,001 times", dockerOf(1, 9_000, `{"Config":"c.json","Layers":["l"]}`),
			Limits{},
			BadManifest, "of type layers",
		},
		{"docker, 40,000 layers", dockerOf(40_000, 0, ""), Limits{}, TooManyLayers, "40000"},
		{"a small layer 100 times", repeated(100, 0), Limits{}, "", ""},
		{"a layer of 8 MiB 100 times", repeated(100, 8<<20), Limits{ImageBytes: 64 << 20}, ImageTooBig, "together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := images.Tar(c.list...)
			err := judgedWithin(t, b, c.limits)
			if got := outcome(t, err); got != string(c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("an archive of %d bytes: outcome %q, want %q: %v", len(b), got, c.want, err)
			}
		})
	}
}

// judgedWithin judges an archive, which is to take a moment.
func judgedWithin(t *testing.T, b []byte, limits Limits) error {
	t.Helper()
	const moment = 20 * time.Second // with the race detector, and beside other work
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := Check(ctx, bytes.NewReader(b), int64(len(b)), Options{Limits: limits})
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(moment + 10*time.Second):
		t.Fatalf("an archive of %d bytes is still judged, its context ended long ago", len(b))
		return nil
	}
}

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	bytes int
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, off)
	c.bytes += n
	return n, err
}

// A layer with too many entries is hashed, and its headers are read as far as entries are
// allowed, for whiteouts too.
func TestTooManyEntriesInALayer(t *testing.T) {
	layer := images.Tar(images.Numbered(40_000, "usr/%05d")...)
	b := images.Tar(images.Image{Layers: [][]byte{layer}}.OCI()...)
	src := &counted{ReaderAt: bytes.NewReader(b)}
	_, err := Check(t.Context(), src, int64(len(b)), Options{Limits: Limits{Entries: 1000}})
	if got := outcome(t, err); got != string(TooManyEntries) {
		t.Errorf("outcome %q: %v", got, err)
	}
	if src.bytes > len(b)+2<<20 {
		t.Errorf("%d bytes read of an archive of %d", src.bytes, len(b))
	}
}
