package extract

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// trees are what is measured: hardly anything, many small files, and one large.
func trees() map[string][]byte {
	return map[string][]byte{
		"tiny":  images.Tar(images.Root()...),
		"small": images.Tar(images.Root(withBodies(images.Numbered(20_000, "usr/%05d"), 3000)...)...),
		"large": images.Tar(images.Root(images.Entry{
			Name: "var/x",
			Body: strings.Repeat("0123456789abcdef", 16<<20),
		})...),
	}
}

func BenchmarkCheck(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := judgeBytes(b, data, archive.Strict)
				check(b, err)
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			root := newDisk(b, 1<<30).mount(dir)
			plan, err := judgeBytes(b, data, archive.Strict)
			check(b, err)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := Write(b.Context(), bytes.NewReader(data), plan, root, nil)
				check(b, err)
				check(b, unix.Syncfs(int(root.Fd())))
				b.StopTimer()
				check(b, os.RemoveAll(dir+"/"+archive.RootName))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkReadBack(b *testing.B) {
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			root := newDisk(b, 1<<30).mount(b.TempDir())
			extractBytes(b, data, archive.Strict, root)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err := ReadBack(b.Context(), root)
				check(b, err)
			}
		})
	}
}

// BenchmarkConfinement is what confinement costs: it writes and reads the same trees with
// and without, in turns.
func BenchmarkConfinement(b *testing.B) {
	free := func(work func() error) error { return work() }
	for name, data := range trees() {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			root := newDisk(b, 1<<30).mount(dir)
			plan, err := judgeBytes(b, data, archive.Strict)
			check(b, err)
			took := func(write, read confine) (writing, reading time.Duration) {
				start := time.Now()
				_, err := writeTree(b.Context(), write, bytes.NewReader(data), plan, root, nil)
				check(b, err)
				writing = time.Since(start)
				start = time.Now()
				_, err = readBack(b.Context(), read, root)
				check(b, err)
				reading = time.Since(start)
				check(b, errors.Join(os.RemoveAll(dir+"/"+archive.RootName), unix.Syncfs(int(root.Fd()))))
				return writing, reading
			}
			var with, without [2][]time.Duration
			confined := func() {
				w, r := took(withOnlyCapabilities(extractCaps(archive.Strict), 0),
					withOnlyCapabilities(readCaps, trustedXattrCaps))
				with[0], with[1] = append(with[0], w), append(with[1], r)
			}
			unconfined := func() {
				w, r := took(free, free)
				without[0], without[1] = append(without[0], w), append(without[1], r)
			}
			for turn := 0; b.Loop(); turn++ {
				first, second := confined, unconfined
				if turn%2 == 1 {
					first, second = unconfined, confined
				}
				first()
				second()
			}
			for i, what := range []string{"write", "read"} {
				b.ReportMetric(float64(median(with[i]))/float64(median(without[i])), what+"-ratio")
				b.ReportMetric(float64(median(without[i]).Milliseconds()), what+"-free-ms")
			}
		})
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkWithOnlyCapabilities is what one confined thread costs, from its start to its
// end.
func BenchmarkWithOnlyCapabilities(b *testing.B) {
	for b.Loop() {
		check(b, withOnlyCapabilities(extractCaps(archive.Strict), 0)(func() error { return nil }))
	}
}
