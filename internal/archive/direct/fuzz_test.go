package direct

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/archive"
)

// FuzzDirect makes a tree of the fuzzer's bytes, and writes it. e2fsck finds nothing, and
// the kernel reads what was written. Bytes make a tree and not an archive: nearly every
// mutation of an archive is refused before it gets here.
func FuzzDirect(f *testing.F) {
	for _, b := range [][]byte{
		nil, bytes.Repeat([]byte{0}, 100), bytes.Repeat([]byte{1, 7, 200}, 40),
		{7, 0, 255, 255, 3, 7, 0, 200, 1, 9},
		{2, 0, 10, 1, 0, 2, 0, 10, 1, 0, 5, 0, 9, 2, 60, 6, 0, 3, 5},
		bytes.Repeat([]byte("\x02\x01\x09\xf0\xff"), 30),
		[]byte("\x00\x00\x01\x02\x03\x04\x05\x06\x07\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"),
	} {
		f.Add(b)
	}
	d := newDisk(f, 256<<20)
	f.Fuzz(func(t *testing.T, b []byte) {
		d.t = t
		packed := pack(t, treeOf(b))
		plan, err := archive.Check(t.Context(), bytes.NewReader(packed), int64(len(packed)),
			archive.Options{Policy: archive.Trusted, Layout: []string{}})
		var refused *archive.Rejection
		if errors.As(err, &refused) {
			return
		}
		check(t, err)
		if plan.DeviceBytes() > d.size {
			return
		}
		d.format()
		written, err := d.write(bytes.NewReader(packed), plan)
		check(t, err)
		d.clean()
		mustBe(t, "read by the kernel", d.look().Inventory, written)
	})
}

// choices are numbers from a fuzzer, and zeros when they are used up.
type choices []byte

func (c *choices) byte() int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b)
}

func (c *choices) number(bytes int) (n uint64) {
	var b [8]byte
	for i := range bytes {
		b[i] = byte(c.byte())
	}
	return binary.LittleEndian.Uint64(b[:])
}

// name is a name of up to 255 bytes, which may be there already.
func (c *choices) name() string {
	letter := []string{"a", "b", "z", "é", "語", "😀", ".", "-"}[c.byte()%8]
	n := c.byte()
	if n%4 == 3 {
		return fmt.Sprint(n)
	}
	return strings.Repeat(letter, max(1, n/len(letter)))
}

// size is a size around the limits of blocks and buffers, or any up to 64 KiB.
func (c *choices) size() int {
	around := []int{0, 1, 60, blockSize, 2 * blockSize, 64 << 10, bufferSize, bufferSize + blockSize}
	if k := c.byte(); k%3 > 0 {
		return max(0, around[k/3%8]+c.byte()%5-2)
	}
	return int(c.number(2))
}

// treeOf makes entries of bytes.
func treeOf(b []byte) []entry {
	c := choices(b)
	dirs, files := []string{""}, []string{"f"}
	list := []entry{file("f", "x")}
	for len(c) > 0 && len(list) < 1500 {
		kind, in := c.byte(), dirs[c.byte()%len(dirs)]
		path := in + c.name()
		var e entry
		switch kind % 8 {
		case 0, 1, 2:
			e = file(path, strings.Repeat(string(rune('a'+c.byte()%26)), c.size()))
			files = append(files, path)
		case 3, 4:
			e = dir(path)
			dirs = append(dirs, path+"/")
		case 5:
			e = symlink(path, strings.Repeat("t", min(1+c.byte(), 255))+strings.Repeat("/x", c.byte()*7))
		case 6:
			e = hardlink(path, files[c.byte()%len(files)])
		default: // many
			for i := range 4 * c.byte() {
				list = append(list, file(fmt.Sprintf("%s%0*d", in, 4+len(path)%250, i), ""))
			}
			continue
		}
		list = append(list, c.attributes(e, kind/8))
	}
	return list
}

// attributes sets some of an entry's attributes.
func (c *choices) attributes(e entry, which int) entry {
	if which&1 != 0 {
		e.Mode = int64(c.number(2)) & 0o7777
	}
	if which&2 != 0 {
		e.Uid, e.Gid = int(c.number(4)), int(c.number(4))
	}
	if which&4 != 0 {
		e.ModTime = time.Unix(int64(c.number(5))-1<<33, int64(c.number(4))%1e9)
	}
	if which&8 != 0 && (e.Typeflag == tar.TypeReg || e.Typeflag == tar.TypeDir) {
		for range c.byte() % 8 {
			e = e.with("user."+strings.Repeat(string(rune('a'+c.byte()%26)), 1+c.byte()%60),
				strings.Repeat("v", c.byte()<<(c.byte()%5)))
		}
	}
	return e
}
