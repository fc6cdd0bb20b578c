package archive

import (
	"strings"
	"testing"

	"imagemanager.internal/test/images"
)

func BenchmarkCheck(b *testing.B) {
	many := images.Numbered(20_000, "usr/%05d")
	for i := range many {
		many[i].Body = strings.Repeat("x", 3000)
	}
	large := images.Entry{Name: "var/x", Body: strings.Repeat("0123456789abcdef", 16<<20)}
	for name, data := range map[string][]byte{
		"tiny":  images.Tar(images.Root()...),
		"small": images.Tar(images.Root(many...)...),
		"large": images.Tar(images.Root(large)...),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := judgeBytes(b, data, Strict)
				check(b, err)
			}
		})
	}
}
