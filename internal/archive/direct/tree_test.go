package direct

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// entry is an entry of an archive that Go's own package writes, with everything that an
// archive can say of a tree.
type entry struct {
	tar.Header
	body string
}

// pack writes an archive.
func pack(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range entries {
		e := &entries[i]
		e.Size, e.Format = int64(len(e.body)), tar.FormatPAX
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_700_000_000, 123_456_789)
		}
		check(t, w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.body))
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}}
}

func file(name, body string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: body}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

func (e entry) with(attribute, value string) entry {
	records := map[string]string{"SCHILY.xattr." + attribute: value}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

// randomTree returns the entries of a tree that exercises every form on the device: sizes
// around the limits of blocks and buffers, names of all lengths, attributes for inode and
// block, targets for both, odd owners, modes and times, and directories of one block,
// of many, and of none.
func randomTree(random *rand.Rand) []entry {
	pick := func(list ...int) int { return list[random.IntN(len(list))] }
	name := func(n int) string {
		const letters = "abcdefghijklmnopqrstuvwxyz0123456789._-"
		b := []byte(fmt.Sprint(n, "-"))
		for range pick(0, 1, 3, 8, 20, 100, 240) {
			b = append(b, letters[random.IntN(len(letters))])
		}
		s := string(b)
		if random.IntN(5) == 0 {
			s += "é語"[:pick(0, 2, 5)]
		}
		return s
	}
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	dirs, files := []string{""}, []string{}
	list := []entry{dir("bin"), dir("etc"), dir("usr"), dir("var")}
	for n := range 5 + pick(0, 10, 100, 300) {
		in := dirs[random.IntN(len(dirs))]
		if random.IntN(3) > 0 {
			in = dirs[len(dirs)-1]
		}
		path := in + name(n)
		var e entry
		switch kind := random.IntN(20); {
		case kind < 3 && strings.Count(path, "/") < 20 && len(path) < 2000:
			e = dir(path)
			e.Mode = 0o700 + random.Int64N(0o100)
			dirs = append(dirs, path+"/")
		case kind < 5:
			e = symlink(path, strings.Repeat("x", pick(1, 58, 59, 60, 61, 200, 255)))
		case kind == 5:
			e = symlink(path, strings.Repeat("x/", pick(100, 2000))+"y")
		case kind < 8 && len(files) > 0:
			e = hardlink(path, files[random.IntN(len(files))])
		default:
			e = file(path, text(max(0, pick(0, 0, 1, 100, 4096, 8192, 65536, 1<<20)+pick(-1, 0, 0, 1, 17))))
			e.Mode = random.Int64N(0o1000)
			files = append(files, path)
		}
		if e.Typeflag != tar.TypeLink {
			e.Uid, e.Gid = pick(0, 0, 1000, 65535, 65536, 1<<31, 1<<32-2), pick(0, 0, 1000, 65536, 1<<32-2)
			sec := pick(0, 1, -1, 1_700_000_000, 1<<31-1, 1<<31, 1<<32, 1<<32+1<<31, 1<<33, 14_000_000_000, -1<<31)
			e.ModTime = time.Unix(int64(sec), random.Int64N(1e9))
		}
		if e.Typeflag == tar.TypeReg || e.Typeflag == tar.TypeDir {
			for k := range pick(0, 0, 0, 0, 1, 2, 5) {
				letter := string(rune('a' + random.IntN(26)))
				attribute := fmt.Sprint("user.", strings.Repeat(letter, pick(1, 2, 10, 40)), k)
				e = e.with(attribute, text(pick(0, 1, 4, 7, 30, 60, 300)))
			}
		}
		list = append(list, e)
	}
	return slices.Clip(list)
}
