package direct

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// extreme are trees at the limits of an archive, of the file system, and of this package.
// part is how much of each limit to take.
func extreme(t testing.TB, part float64) map[string]func() (src io.ReaderAt, size int64) {
	n := func(most int) int { return max(1, int(float64(most)*part)) }
	each := func(count int, one func(i int) entry, first ...entry) func() (io.ReaderAt, int64) {
		return func() (io.ReaderAt, int64) {
			list := slices.Concat([]entry{dir("etc"), dir("usr"), dir("var")}, first)
			for i := range count {
				list = append(list, one(i))
			}
			b := pack(t, list)
			return bytes.NewReader(b), int64(len(b))
		}
	}
	long := strings.Repeat("n", 176)
	most := 99_990 // entries
	return map[string]func() (io.ReaderAt, int64){
		"empty files with long names in one directory": each(n(most), func(i int) entry {
			return file(fmt.Sprintf("usr/%05d%s", i, long), "")
		}),
		"names of 255 bytes": each(n(76_000), func(i int) entry {
			return file(fmt.Sprintf("usr/%0255d", i), "")
		}),
		"directories in one directory": each(n(most), func(i int) entry { return dir(fmt.Sprintf("usr/%05d", i)) }),
		"directories in directories": each(n(88_880), func(i int) entry {
			return dir(strings.TrimSuffix("usr/"+strings.Join(strings.Split(fmt.Sprintf("%05d", i), ""), "/"), "/0"))
		}),
		"deepest": each(n(700), func(i int) entry {
			return file(strings.Repeat(fmt.Sprintf("%03d/", i), 127)+"f", "x")
		}),
		"two attributes each": each(n(most), func(i int) entry {
			return file(fmt.Sprintf("usr/%05d", i), "").
				with("user.a", strings.Repeat("a", 20)).with("user.b", fmt.Sprintf("%030d", i))
		}),
		"attributes that fill a block": each(n(5_000), func(i int) entry {
			return file(fmt.Sprintf("usr/%05d", i), "x").with("user.a", fmt.Sprintf("%03940d", i))
		}),
		"files of one byte": each(n(most), func(i int) entry {
			return file(fmt.Sprintf("usr/%05d", i), string(rune('a'+i%26)))
		}),
		"long symbolic links": each(n(5_000), func(i int) entry {
			return symlink(fmt.Sprintf("usr/%05d", i), strings.Repeat(strings.Repeat("t", 255)+"/", 16)[:4095])
		}),
		"sizes around blocks and buffers": each(n(60), func(i int) entry {
			size := []int{4095, 4096, 4097, bufferSize - 1, bufferSize, bufferSize + 1}[i%6]
			return file(fmt.Sprintf("usr/%05d", i), strings.Repeat(string(rune('a'+i%26)), size))
		}),
		"one file with many names": each(n(60_000), func(i int) entry {
			return hardlink(fmt.Sprintf("usr/%05d", i), "etc/f")
		}, file("etc/f", "x").with("user.a", long)),
		"one large file": func() (io.ReaderAt, int64) {
			s := images.Sized(int64(n(1 << 30)))
			return s, s.Size()
		},
	}
}

// Trees at the limits fit a device of the size that the plan asks for.
func TestExtremeTrees(t *testing.T) {
	for name, build := range extreme(t, share()) {
		t.Run(name, func(t *testing.T) {
			src, size := build()
			plan, err := archive.Check(t.Context(), src, size, archive.Options{Policy: archive.Distro})
			check(t, err)
			d := newDisk(t, plan.DeviceBytes())
			written, err := d.write(src, plan)
			check(t, err)
			d.clean()
			got := d.look()
			mustBe(t, "read by the kernel", got.Inventory, written)
			t.Logf("%d entries, %d bytes, device of %d MiB", plan.Entries, plan.Bytes, d.size>>20)
			if full() && plan.Bytes < 1<<30 { // the other engine needs more room for that
				mustLookLike(t, name, got, newDisk(t, d.size).writeMounted(src, plan))
			}
			smallest(t, src, plan)
		})
	}
}

// share is how much of the limits to take: a little, without CIM_DIRECT_FULL.
func share() float64 {
	if full() {
		return 1
	}
	return 0.02
}

// smallest looks for the least device that the tree fits on. The tree is written to it,
// with the largest seal record. On one that is a MiB smaller nothing is written.
func smallest(t *testing.T, src io.ReaderAt, plan *archive.Plan) {
	t.Helper()
	const mib = 1 << 20
	low, high := int64(16), plan.DeviceBytes()/mib
	for low < high {
		size := (low + high) / 2
		d := newDisk(t, size*mib)
		before := d.digest()
		_, err := d.write(src, plan)
		switch {
		case err == nil:
			high = size
			d.clean()
		case errors.Is(err, ErrNoRoom):
			if d.digest() != before {
				t.Fatalf("%d MiB are too small, and something was written: %v", size, err)
			}
			low = size + 1
		default:
			t.Fatal(err)
		}
	}
	t.Logf("fits %d MiB; the plan asks for %d", high, plan.DeviceBytes()/mib)
}
