package archive

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/test/images"
)

// trees are what is measured: many small files, and one large.
func trees() map[string][]byte {
	return map[string][]byte{
		"small": images.Tar(images.Root(withBodies(numberedFiles(20_000, "usr/%05d"), 3000)...)...),
		"large": images.Tar(images.Root(images.Entry{Name: "var/x", Body: strings.Repeat("0123456789abcdef", 16<<20)})...),
	}
}

func BenchmarkCheck(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := judgeBytes(b, data, Strict)
				check(b, err)
			}
		})
	}
}

func BenchmarkExtract(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			root := newDisk(b, 1<<30).mount(dir)
			plan, err := judgeBytes(b, data, Strict)
			check(b, err)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := Extract(b.Context(), bytes.NewReader(data), plan, root, nil)
				check(b, err)
				check(b, unix.Syncfs(int(root.Fd())))
				b.StopTimer()
				check(b, os.RemoveAll(dir+"/"+rootfsName))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkReadManifest(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			root := newDisk(b, 1<<30).mount(b.TempDir())
			extractBytes(b, data, Strict, root)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := ReadManifest(b.Context(), root)
				check(b, err)
			}
		})
	}
}
