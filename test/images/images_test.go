package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Go's reader, which is independent of ours, sees in the plain good archives what was put
// in.
func TestBuilderAgainstGo(t *testing.T) {
	for _, c := range Cases() {
		if c.Group != "good" || c.Strict != "" {
			continue
		}
		r, n := tar.NewReader(bytes.NewReader(c.Bytes)), 0
		for ; ; n++ {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
		}
		if n < 3 {
			t.Errorf("%s has %d entries", c.Name, n)
		}
	}
}

// One archive in detail: numbers, types, PAX records, links, long names.
func TestBuilder(t *testing.T) {
	long := string(bytes.Repeat([]byte("n"), 150))
	b := Tar(
		Entry{Name: "d/", UID: 5, GID: 1 << 31},
		Entry{Name: "f", Body: "data", Mode: 0o4755, MTime: -7},
		Entry{Name: "l", Link: "f"},
		Entry{Name: "p", PAX: []string{"path=pax", "SCHILY.xattr.user.x=y"}},
		Long('L', long), Entry{Name: "x", Type: '1', Link: "f"},
		Entry{Name: "c", Type: '3', Dev: [2]int64{1, 3}},
	)
	want := []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 5, Gid: 1 << 31},
		{Name: "f", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 4},
		{Name: "l", Typeflag: tar.TypeSymlink, Mode: 0o644, Linkname: "f"},
		{Name: "pax", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: long, Typeflag: tar.TypeLink, Mode: 0o644, Linkname: "f"},
		{Name: "c", Typeflag: tar.TypeChar, Mode: 0o644, Devmajor: 1, Devminor: 3},
	}
	r := tar.NewReader(bytes.NewReader(b))
	for _, w := range want {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != w.Name || h.Typeflag != w.Typeflag || h.Mode != w.Mode || h.Size != w.Size ||
			h.Linkname != w.Linkname ||
			h.Uid != w.Uid || h.Gid != w.Gid || h.Devmajor != w.Devmajor || h.Devminor != w.Devminor {
			t.Errorf("%+v, want %+v", h, w)
		}
		if w.Name == "f" && h.ModTime.Unix() != -7 {
			t.Errorf("time %s", h.ModTime)
		}
		if w.Name == "pax" && h.PAXRecords["SCHILY.xattr.user.x"] != "y" {
			t.Errorf("records %v", h.PAXRecords)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

// A PAX record counts its own length, also where that adds a digit.
func TestRecords(t *testing.T) {
	for pair, want := range map[string]string{
		"a=b": "6 a=b\n", "abcd=1": "9 abcd=1\n", "abcde=1": "11 abcde=1\n",
		"abcdef=1": "12 abcdef=1\n",
	} {
		if got := Records(pair); got != want {
			t.Errorf("%q is %q, want %q", pair, got, want)
		}
	}
}

// The list is as large as promised, its archives have names of their own and are the same
// every time.
func TestCases(t *testing.T) {
	seen, again := map[string]bool{}, Cases()
	for i, c := range Cases() {
		name := c.Group + "/" + c.Name
		if seen[name] {
			t.Errorf("two archives are called %s", name)
		}
		seen[name] = true
		if !bytes.Equal(c.Bytes, again[i].Bytes) {
			t.Errorf("%s differs each time", name)
		}
		if (c.Strict == "" || c.Distro == "" || c.Trusted == "") != (c.Shape != "") {
			t.Errorf("%s: shape %q where it is accepted", name, c.Shape)
		}
	}
	if len(seen) < 120 {
		t.Errorf("%d archives", len(seen))
	}
}

// Every folder of other projects' archives has its licence.
func TestLicences(t *testing.T) {
	archives, err := filepath.Glob("testdata/*/*.tar")
	if err != nil || len(archives) < 200 {
		t.Fatalf("%d archives, %v", len(archives), err)
	}
	for _, a := range archives {
		d := filepath.Dir(a)
		licences, err := filepath.Glob(d + "/[LC][IO][CP][EY]*")
		if err != nil || len(licences) == 0 {
			t.Errorf("%s has no licence", d)
		}
	}
}

// An image whose layers lie in files is the same, to the byte, as one in memory.
func TestLayersInFiles(t *testing.T) {
	im := two()
	var files Image
	for i, l := range im.Layers {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(path, append(l, byte(i)), 0o600); err != nil { // not a whole number of blocks
			t.Fatal(err)
		}
		im.Layers[i] = append(l, byte(i))
		f, err := LayerFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files.Files = append(files.Files, f)
	}
	for form, lists := range map[string][2][]Entry{
		"docker": {im.Docker(), files.Docker()}, "docker 25": {im.Docker25(), files.Docker25()},
		"oci": {im.OCI(), files.OCI()},
	} {
		var b bytes.Buffer
		if err := Write(&b, lists[1]...); err != nil || !bytes.Equal(b.Bytes(), Tar(lists[0]...)) {
			t.Errorf("%s: written from files it differs; %v", form, err)
		}
	}
}
