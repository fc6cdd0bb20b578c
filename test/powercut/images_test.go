package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// image is an object of the bucket and what must become of it.
type image struct {
	key     string
	archive []byte
	ends    store.State
	files   map[string]string // on the snapshot, by path
}

// images are made once: the same bytes in every state, so the same identities.
var images = sync.OnceValue(func() []image {
	return []image{
		newImage("a", 10, 0),
		newImage("large", 20, 2),
		newRefused("refused"),
		newImage("b", 10, 0),
		newImage("c", 20, 0),
	}
})

// newImage makes an image of small files, and of large ones of 3 MiB each.
func newImage(name string, small, large int) image {
	img := image{key: "images/" + name + ".tar", ends: store.StateActive, files: map[string]string{}}
	entries := []tarballs.Entry{{Name: "etc/"}, {Name: "usr/"}, {Name: "var/"}}
	random := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name))))
	for i := range small + large {
		size := 100 + i*300
		if i >= small {
			size = 3 << 20
		}
		body := make([]byte, size)
		_, _ = random.Read(body) // never fails
		path := fmt.Sprintf("usr/%04d", i)
		img.files["rootfs/"+path] = string(body)
		entries = append(entries, tarballs.Entry{Name: path, Body: string(body)})
	}
	img.archive = tarballs.Tar(entries...)
	return img
}

// newRefused makes an archive that is refused as an attack.
func newRefused(name string) image {
	return image{
		key: "images/" + name + ".tar", ends: store.StateViolation,
		archive: tarballs.Tar(tarballs.Entry{Name: "etc/"},
			tarballs.Entry{Name: "../out", Body: string(bytes.Repeat([]byte("x"), 10000))}),
	}
}

func byKey(key string) image {
	for _, img := range images() {
		if img.key == key {
			return img
		}
	}
	return image{}
}
