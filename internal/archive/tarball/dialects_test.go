package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/test/images"
)

// allKinds is archives of every kind, of other projects, in every dialect, and n of all
// these with changed headers. They are the same in every run.
func allKinds(t *testing.T, n int) [][]byte {
	t.Helper()
	all := slices.Concat(samples(), corpus(t), dialects(t))
	return append(all, mutants(all, n)...)
}

// corpus is the archives of other projects.
func corpus(t *testing.T) (all [][]byte) {
	t.Helper()
	cases, err := images.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if len(c.Bytes) < 1<<20 {
			all = append(all, c.Bytes)
		}
	}
	return all
}

// Every dialect of the tools is accepted.
func TestDialects(t *testing.T) {
	requireGNUTar(t)
	for i, b := range dialects(t) {
		if _, err := list(t.Context(), b); !errors.Is(err, io.EOF) {
			t.Errorf("archive %d: %v", i, err)
		}
	}
}

// dialects is a tree in every dialect that GNU tar and archive/tar write.
func dialects(t *testing.T) (all [][]byte) {
	t.Helper()
	name := strings.Repeat("n", 90)
	path := name + "/" + name
	long := path + "/" + path + strings.Repeat("m", 99)
	for _, c := range []struct {
		path    string // as long as the dialect can hold
		options []string
	}{
		{name, []string{"--format=v7"}},
		{path, []string{"--format=ustar"}},
		{long, []string{"--format=oldgnu"}},
		{long, []string{"--format=gnu"}},
		{long, []string{"--format=posix"}},
		{long, []string{"--format=posix", "--xattrs", "--acls", "--selinux"}},
		{long, []string{"--format=posix", "--pax-option=mtime=1600000000,comment=x"}},
	} {
		all = append(all, gnuWrites(t, c.path, c.options))
	}
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatGNU, tar.FormatPAX} {
		all = append(all, goWrites(t, format))
	}
	return all
}

func gnuWrites(t *testing.T, long string, options []string) []byte {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, filepath.Dir(long)), 0o755),
		os.WriteFile(filepath.Join(dir, long), []byte("data"), 0o640),
		os.WriteFile(filepath.Join(dir, "caf\u00e9 \\\t1"), nil, 0o600),
		os.Symlink("x/../target", filepath.Join(dir, "link")),
		os.Link(filepath.Join(dir, "caf\u00e9 \\\t1"), filepath.Join(dir, "hard")),
		os.Chmod(dir, 0o1777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "tar", append(options, "--mtime=@1700000000", "--owner=0", "--group=0",
		"--sort=name", "-C", dir, "-cf", "-", ".")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tar %q: %v", options, err)
	}
	return out
}

func goWrites(t *testing.T, format tar.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	deep := strings.Repeat("d/", 70)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2755, ModTime: time.Unix(1, 0)},
		{Name: deep + "f", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 7, Gid: 9, Size: 3},
		{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../" + strings.Repeat("t", 90)},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/f"},
		{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		{Name: "p", Typeflag: tar.TypeFifo},
	} {
		h.Format = format
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// mutants changes a byte or two in n of the archives, and corrects the checksum.
func mutants(archives [][]byte, n int) (all [][]byte) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible
	for range n {
		b := bytes.Clone(archives[random.IntN(len(archives))])
		for range 1 + random.IntN(2) {
			if len(b) < BlockSize {
				break
			}
			block := b[random.IntN(len(b)/BlockSize)*BlockSize:][:BlockSize]
			header := IsHeader(block)
			// Fields are changed more often than names, and to what fields are made of.
			at := random.IntN(BlockSize)
			if random.IntN(2) == 0 {
				at = 100 + random.IntN(57)
			}
			block[at] = "\x00 0127-5gxLKS/\xff"[random.IntN(15)]
			if header {
				images.Checksum(block)
			}
		}
		all = append(all, b)
	}
	return all
}
