package tarball

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The checksum is the sum of all bytes, as unsigned numbers, with blanks for its own.
func TestChecksum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for n := range 1000 {
		b := bytes.Repeat([]byte{0xff}, BlockSize)
		for i := range b {
			if n > 0 {
				b[i] = byte(random.Uint32())
			}
		}
		want := int64(0)
		for i, c := range b {
			if i >= 148 && i < 156 {
				c = ' '
			}
			want += int64(c)
		}
		if have := checksum(b); have != want {
			t.Fatalf("%d, want %d: %x", have, want, b)
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	block := bytes.Repeat([]byte("header"), 100)[:BlockSize]
	b.SetBytes(BlockSize)
	for b.Loop() {
		checksum(block)
	}
}
