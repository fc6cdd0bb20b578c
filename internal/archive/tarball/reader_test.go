package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"imagemanager.internal/test/images"
)

// recordLimit is the limit of an entry's extended headers, in bytes.
const recordLimit = 64 << 10

// list reads the whole archive.
func list(ctx context.Context, b []byte) ([]string, error) {
	return render(ctx, b, func(h *Header) string {
		return fmt.Sprintf("%+v", entry{
			string(h.Type), string(h.Name), string(h.Linkname), h.Mode, h.UID, h.GID, h.ModTime,
			string(b[h.DataOffset : h.DataOffset+h.Size]),
		})
	})
}

// render reads the whole archive, and lists it with a line for an entry.
func render(ctx context.Context, b []byte, line func(*Header) string) (lines []string, err error) {
	r := NewReader(bytes.NewReader(b), int64(len(b)), recordLimit)
	for {
		h, err := r.Next(ctx)
		if err != nil {
			return lines, err
		}
		lines = append(lines, line(h))
	}
}

// entry is what readers have to agree about.
type entry struct {
	Type, Name, Link string
	Mode, UID, GID   int64
	Time             Time
	Body             string
}

// oracle is what archive/tar makes of the same bytes.
func oracle(b []byte) (lines []string, err error) {
	r, global := tar.NewReader(bytes.NewReader(b)), ""
	for {
		h, err := r.Next()
		if err != nil {
			return lines, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if t, ok := h.PAXRecords["mtime"]; ok {
				global = t
			}
			continue
		}
		mtime := Time{h.ModTime.Unix(), int32(h.ModTime.Nanosecond())}
		if global != "" && h.PAXRecords["mtime"] == "" { // archive/tar does not apply it
			mtime, _ = timestamp([]byte(global))
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%+v", entry{
			string(h.Typeflag), h.Name, h.Linkname, h.Mode & permissions, int64(h.Uid), int64(h.Gid), mtime,
			string(body),
		}))
	}
}

// agree fails when we accept an archive that archive/tar sees otherwise.
func agree(t *testing.T, b []byte) error {
	t.Helper()
	got, err := list(t.Context(), b)
	if !errors.Is(err, io.EOF) {
		return err
	}
	want, err := oracle(b)
	if !errors.Is(err, io.EOF) {
		t.Errorf("accepted; archive/tar says %v", err)
	}
	same(t, "archive/tar", got, want)
	return nil
}

// same fails at the first entry in which another reader's listing differs.
func same(t *testing.T, reader string, ours, theirs []string) {
	t.Helper()
	for i := range max(len(ours), len(theirs)) {
		a, b := at(ours, i), at(theirs, i)
		if a != b {
			t.Errorf("entry %d is\n%.2000s, to %s\n%.2000s", i, a, reader, b)
			return
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// Whatever is accepted of other projects' odd archives is listed by archive/tar in the
// same way.
func TestCorpusAgrees(t *testing.T) {
	files, err := filepath.Glob("../../../test/images/testdata/*/*.tar")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d archives (%v)", len(files), err)
	}
	accepted := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(filepath.Dir(f))+"/"+filepath.Base(f), func(t *testing.T) {
			if agree(t, b) == nil {
				accepted++
			}
		})
	}
	if accepted < len(files)/3 {
		t.Errorf("only %d of %d accepted", accepted, len(files))
	}
}

// samples are small archives of every kind for fuzzing to start from.
func samples() [][]byte {
	var all [][]byte
	for _, c := range images.Cases() {
		switch c.Group {
		case "framing", "pax", "good", "modes", "types", "xattrs":
			if len(c.Bytes) < 16<<10 {
				all = append(all, c.Bytes)
			}
		}
	}
	return all
}

func FuzzTar(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := agree(t, repair(b))
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("an error of another type: %v", err)
		}
	})
}

// repair corrects checksums, so that fuzzing gets beyond them, and adds an end. A header
// is a block with a number for one, or with an S.
func repair(b []byte) []byte {
	b = append(bytes.Clone(b), make([]byte, padded(int64(len(b)))-int64(len(b))+2*BlockSize)...)
	for off := 0; off+BlockSize <= len(b); off += BlockSize {
		block := b[off : off+BlockSize]
		if sum, err := octal(block[148:156]); err == nil && sum != 0 || block[148] == 'S' {
			images.Checksum(block)
		}
	}
	return b
}

// A time in a global header is that of the entries after it, until another one. An
// entry's own time wins, unless it is empty.
func TestGlobalTime(t *testing.T) {
	global := func(record string) images.Entry {
		return images.Entry{Name: "g", Type: 'g', Body: images.Records("comment=x", record)}
	}
	file := func(records ...string) images.Entry { return images.Entry{Name: "x", PAX: records, MTime: 1} }
	b := images.Tar(file(), file("mtime="), global("mtime=2.5"), file(), file("mtime=3"), file("mtime="),
		global("uname=x"), file(), global("mtime=4"), file(), global("mtime="), file())
	r := NewReader(bytes.NewReader(b), int64(len(b)), recordLimit)
	for i, want := range []Time{{Sec: 1}, {Sec: 1}, {2, 5e8}, {Sec: 3}, {2, 5e8}, {2, 5e8}, {Sec: 4}, {Sec: 1}} {
		h, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime != want {
			t.Errorf("entry %d: %v, want %v", i, h.ModTime, want)
		}
	}
}

// A long name may be followed by more zeros than are read at once.
func TestLongNameWithALongTail(t *testing.T) {
	for _, size := range []int{windowSize, windowSize + 2, 64 << 10} {
		b := images.Blocks(images.Entry{Name: "././@LongLink", Type: 'L', Body: "etc" + string(make([]byte, size-3))},
			images.Entry{Name: "x", Body: "x"})
		b = append(b, make([]byte, 1024)...)
		if _, err := list(t.Context(), b); !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
