package download

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// recorded puts a blob into the directory, as it would be recorded.
func recorded(t *testing.T, d *Downloader, data []byte) Blob {
	t.Helper()
	path := filepath.Join(d.cfg.Dir, "1.tar")
	write(t, path, string(data))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return Blob{
		Path: path, SHA256: sumOf(data), Size: int64(len(data)), Inode: inode(info), ModTime: info.ModTime(),
		ETag: tag,
	}
}

func TestCheck(t *testing.T) {
	flipped := append([]byte{payload[0] ^ 1}, payload[1:]...)
	rewrite := func(b Blob, data []byte) error { return os.WriteFile(b.Path, data, 0o600) }
	replace := func(b Blob, put func(path string) error) error { return errors.Join(os.Remove(b.Path), put(b.Path)) }
	cases := map[string]struct {
		change func(b Blob) error
		want   error
		fresh  bool // the blob comes back with another inode or time
	}{
		"untouched": {func(Blob) error { return nil }, nil, false},
		"touched":   {func(b Blob) error { return os.Chtimes(b.Path, time.Time{}, time.Unix(1, 0)) }, nil, true},
		"copied": {func(b Blob) error {
			return replace(b,
				func(p string) error { return os.WriteFile(p, payload, 0o600) })
		}, nil, true},
		"missing":   {func(b Blob) error { return os.Remove(b.Path) }, ErrMissing, false},
		"truncated": {func(b Blob) error { return os.Truncate(b.Path, b.Size-1) }, ErrCorrupt, false},
		"truncated, time put back": {func(b Blob) error {
			return errors.Join(os.Truncate(b.Path, b.Size-1), os.Chtimes(b.Path, time.Time{}, b.ModTime))
		}, ErrCorrupt, false},
		"empty":  {func(b Blob) error { return os.Truncate(b.Path, 0) }, ErrCorrupt, false},
		"longer": {func(b Blob) error { return rewrite(b, append(payload[:b.Size:b.Size], 0)) }, ErrCorrupt, false},
		"one bit, other time": {func(b Blob) error {
			return errors.Join(rewrite(b, flipped), os.Chtimes(b.Path, time.Time{}, time.Unix(1, 0)))
		}, ErrCorrupt, false},
		"one bit, time put back": {func(b Blob) error {
			return errors.Join(rewrite(b, flipped), os.Chtimes(b.Path, time.Time{}, b.ModTime))
		}, nil, false}, // documented
		"link to the same bytes": {func(b Blob) error {
			return errors.Join(os.Rename(b.Path, b.Path+"2"),
				os.Symlink(b.Path+"2", b.Path))
		}, ErrCorrupt, false},
		"dangling link": {func(b Blob) error {
			return replace(b,
				func(p string) error { return os.Symlink("/nowhere", p) })
		}, ErrCorrupt, false},
		"directory": {func(b Blob) error {
			return replace(b,
				func(p string) error { return os.Mkdir(p, 0o700) })
		}, ErrCorrupt, false},
		"FIFO that nobody writes": {func(b Blob) error {
			return replace(b,
				func(p string) error { return syscall.Mkfifo(p, 0o600) })
		}, ErrCorrupt, false},
		"link to a device": {func(b Blob) error {
			return replace(b,
				func(p string) error { return os.Symlink("/dev/zero", p) })
		}, ErrCorrupt, false},
		"a directory of the path": {
			func(b Blob) error { return os.RemoveAll(filepath.Dir(b.Path)) }, ErrMissing,
			false,
		},
		"same size, other contents": {func(b Blob) error {
			return replace(b,
				func(p string) error { return os.WriteFile(p, flipped, 0o600) })
		}, ErrCorrupt, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, nil, Config{})
			b := recorded(t, d, payload)
			if err := c.change(b); err != nil {
				t.Fatal(err)
			}
			got, err := d.Check(t.Context(), b)
			if !errors.Is(err, c.want) || c.want != nil && got != (Blob{}) {
				t.Fatalf("%+v, %v, want %v", got, err, c.want)
			}
			if c.want != nil {
				return
			}
			if c.fresh == (got == b) {
				t.Errorf("blob is %+v, was %+v", got, b)
			}
			if again, err := d.Check(t.Context(), got); err != nil || again != got {
				t.Errorf("the blob returned does not hold: %+v, %v", again, err)
			}
			got.Inode, got.ModTime = b.Inode, b.ModTime
			if got != b {
				t.Errorf("more than inode and time differ: %+v, was %+v", got, b)
			}
		})
	}
}

// A hash is taken of the file that was looked at, or of none: what has taken its place is
// neither followed nor waited for.
func TestCheckReplacedMeanwhile(t *testing.T) {
	d := downloader(t, nil, Config{})
	b := recorded(t, d, payload)
	info, err := os.Lstat(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.Path, b.Path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(b.Path+"2", b.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := hashFile(t.Context(), b.Path, info); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to the very file: %v, want ELOOP", err)
	}
	if err := errors.Join(os.Remove(b.Path), syscall.Mkfifo(b.Path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := hashFile(t.Context(), b.Path, info); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a FIFO: %v, want ErrCorrupt", err)
	}
}

// A link is not a blob, not even one as long as the blob.
func TestCheckLinkOfTheSameLength(t *testing.T) {
	d := downloader(t, nil, Config{})
	target := filepath.Join(d.cfg.Dir, "2.tar")
	b := recorded(t, d, noise(len(target)))
	if err := errors.Join(os.Rename(b.Path, target), os.Symlink(target, b.Path)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Check(t.Context(), b); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}

func TestCheckCancelled(t *testing.T) {
	d := downloader(t, nil, Config{})
	b := recorded(t, d, payload)
	b.Inode++
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStage)
	if _, err := d.Check(ctx, b); !errors.Is(err, errStage) {
		t.Errorf("%v, want %v", err, errStage)
	}
}

// Remove is total: whatever is there, any number of times.
func TestRemove(t *testing.T) {
	for name, files := range map[string][]string{
		"nothing": nil, "blob": {"1.tar"}, "temporary file": {"1.tar.part"}, "both": {"1.tar", "1.tar.part"},
	} {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, nil, Config{})
			write(t, filepath.Join(d.cfg.Dir, "11.tar"), "another's")
			for _, f := range files {
				write(t, filepath.Join(d.cfg.Dir, f), "x")
			}
			for range 3 {
				if err := d.Remove("1.tar"); err != nil {
					t.Fatal(err)
				}
				wantFiles(t, d, "11.tar")
			}
		})
	}
}

// Whatever List names can be removed by that name.
func TestRemoveWhatIsListed(t *testing.T) {
	d := downloader(t, nil, Config{})
	for _, f := range []string{"2.tar", "1.tar.part", "1.tar", "lost+found"} {
		write(t, filepath.Join(d.cfg.Dir, f), "x")
	}
	wantFiles(t, d, "1.tar", "1.tar.part", "2.tar", "lost+found")
	for _, name := range list(t, d) {
		if err := d.Remove(name); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, d)
}

// What is not ours to remove is an error with its errno, and stays.
func TestRemoveFails(t *testing.T) {
	d := downloader(t, nil, Config{})
	if err := os.MkdirAll(filepath.Join(d.cfg.Dir, "1.tar", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("1.tar"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("%v, want ENOTEMPTY", err)
	}
	if err := os.RemoveAll(d.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("1.tar"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
}
