package direct

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// A window reads what the archive holds, in whatever order, up to its end; small reads in
// a row cost few of the archive.
func TestWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	all := make([]byte, 5*windowSize+17)
	for i := range all {
		all[i] = byte(random.Uint32())
	}
	reads := 0
	w := newWindow(source{bytes.NewReader(all), func(int64) { reads++ }})
	for off := 0; off < len(all); off += 512 {
		mustRead(t, w, all, off, min(512, len(all)-off))
	}
	if reads != 6 {
		t.Errorf("%d reads, want 6", reads)
	}
	for range 10_000 {
		off := random.IntN(len(all))
		mustRead(t, w, all, off, min(random.IntN(2*smallRead), len(all)-off))
	}
	for _, size := range []int{10, 2 * smallRead} {
		b := make([]byte, size)
		n, err := w.ReadAt(b, int64(len(all)-7))
		if n != 7 || !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], all[len(all)-7:]) {
			t.Errorf("at the end: %d, %v", n, err)
		}
	}
}

func mustRead(t *testing.T, w *window, all []byte, off, n int) {
	t.Helper()
	b := make([]byte, n)
	if got, err := w.ReadAt(b, int64(off)); got != n || err != nil || !bytes.Equal(b, all[off:off+n]) {
		t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
	}
}
