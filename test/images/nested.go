package images

import "slices"

// Nested is an OCI layout whose index names the same index n times, and that the next, so
// many levels deep; the last of them names a manifest that is empty.
func Nested(n, levels int) []Entry {
	doc, media := []byte("{}"), mediaManifest
	list := []Entry{{Name: "oci-layout", Body: layoutFile}}
	for range levels {
		list = append(list, blob(doc))
		names := slices.Repeat([]Object{descriptor(media, doc)}, n)
		doc, media = encode(Object{"schemaVersion": 2, "manifests": names}), mediaIndex
	}
	return append(list, Entry{Name: "index.json", Body: string(doc)})
}
