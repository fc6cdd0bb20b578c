package download

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// smallDisk is a directory with room for a number of bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("a descriptor was left open: %v", err)
		}
	})
	return dir
}

// A full disk is an errno, not a short file, and leaves nothing; where the size is known
// it is found before the first byte is taken.
func TestDiskFull(t *testing.T) {
	for name, length := range map[string]int{"size known": len(payload), "size not known": -1} {
		t.Run(name, func(t *testing.T) {
			taken := 0
			d := downloader(t, serve(length, func(context.Context) reader {
				rest := once(payload)
				return func(p []byte) (int, error) {
					n, err := rest(p)
					taken += n
					return n, err
				}
			}), Config{Dir: filepath.Join(smallDisk(t, "300k"), "blobs")})
			_, err := d.Fetch(t.Context(), "1.tar", Object{}, nil)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v, want ENOSPC", err)
			}
			if length >= 0 && taken > 0 {
				t.Errorf("%d bytes were taken before the disk was asked for room", taken)
			}
			wantFiles(t, d)
		})
	}
}

// events reads what inotify(7) saw in the directory, as "event name".
func events(t *testing.T, fd int) []string {
	t.Helper()
	words := map[uint32]string{
		unix.IN_CREATE: "create", unix.IN_CLOSE_WRITE: "close", unix.IN_MOVED_FROM: "from", unix.IN_MOVED_TO: "to",
		unix.IN_DELETE: "delete",
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0])) //nolint:gosec // the kernel's layout
		end := unix.SizeofInotifyEvent + int(e.Len)
		list = append(list, words[e.Mask]+" "+strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00"))
		b = b[end:]
	}
	return list
}

// The final name appears once, by rename, when the file is complete and closed; the bytes
// are on disk by then.
func TestDurableOrder(t *testing.T) {
	d := downloader(t, client(t, object()), Config{})
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	const seen = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE
	if _, err := unix.InotifyAddWatch(fd, d.cfg.Dir, seen); err != nil {
		t.Fatal(err)
	}
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)), func(int64, int64) {
		if got := list(t, d); !slices.Equal(got, []string{"1.tar.part"}) {
			t.Errorf("while it comes in, the directory holds %q", got)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"create 1.tar.part", "close 1.tar.part", "from 1.tar.part", "to 1.tar"}
	if got := events(t, fd); !slices.Equal(got, want) {
		t.Errorf("saw %q, want %q", got, want)
	}
	info, err := os.Lstat(blob.Path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v (%v)", info.Mode(), err)
	}
	wantClean(t, blob.Path)
}

// wantClean asks the page cache, by cachestat(2) of Linux 6.5, whether a byte of the file
// is not on disk yet.
func wantClean(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stat unix.Cachestat_t
	switch err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0); {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP):
		t.Logf("not checked that the file was synchronised: cachestat: %v", err)
	case err != nil:
		t.Fatal(err)
	case stat.Dirty+stat.Writeback > 0:
		t.Errorf("%d pages of %s are not on disk", stat.Dirty+stat.Writeback, path)
	}
}

// What lies in the way of the temporary file is removed, not followed; what cannot be
// removed is an error.
func TestObstacles(t *testing.T) {
	cases := map[string]struct {
		put  func(t *testing.T, dir, victim string) error
		fail bool
	}{
		"old temporary file": {func(_ *testing.T, dir,
			_ string,
		) error {
			return os.WriteFile(dir+"/1.tar.part", payload, 0o644)
		}, false},
		"link to a victim": {func(_ *testing.T, dir,
			victim string,
		) error {
			return os.Symlink(victim, dir+"/1.tar.part")
		}, false},
		"hard link": {func(_ *testing.T, dir,
			victim string,
		) error {
			return os.Link(victim, dir+"/1.tar.part")
		}, false},
		"FIFO": {func(_ *testing.T, dir,
			_ string,
		) error {
			return syscall.Mkfifo(dir+"/1.tar.part", 0o600)
		}, false},
		"final name a link": {
			func(_ *testing.T, dir, victim string) error { return os.Symlink(victim, dir+"/1.tar") },
			false,
		},
		"full directory": {func(_ *testing.T, dir,
			_ string,
		) error {
			return os.MkdirAll(dir+"/1.tar.part/x", 0o700)
		}, true},
		"final name taken": {
			func(_ *testing.T, dir, _ string) error { return os.MkdirAll(dir+"/1.tar/x", 0o700) },
			true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, object()), Config{})
			victim := filepath.Join(t.TempDir(), "victim")
			write(t, victim, "untouched")
			if err := c.put(t, d.cfg.Dir, victim); err != nil {
				t.Fatal(err)
			}
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)), nil)
			if (err != nil) != c.fail {
				t.Errorf("error is %v", err)
			}
			if !c.fail {
				wantBlob(t, d, "1.tar", blob, payload)
				wantFiles(t, d, "1.tar")
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != "untouched" {
				t.Errorf("the victim holds %q, %v", got, err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "state", "blobs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := downloader(t, nil, Config{Dir: dir})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v (%v), want 0700", info.Mode(), err)
	}
	if d.cfg.MaxBytes != DefaultMaxBytes || d.cfg.StallTimeout != DefaultStall {
		t.Errorf("defaults are %+v", d.cfg)
	}
	write(t, filepath.Join(parent, "file"), "")
	if _, err := New(nil, Config{Dir: filepath.Join(parent, "file", "blobs")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("under a file: %v", err)
	}
	t.Chdir(parent)
	d = downloader(t, nil, Config{Dir: "relative"})
	if d.cfg.Dir != filepath.Join(parent, "relative") {
		t.Errorf("directory is %q: it depends on where the process goes later", d.cfg.Dir)
	}
}

func TestListWithoutDirectory(t *testing.T) {
	d := downloader(t, nil, Config{})
	if err := os.Remove(d.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that it does not exist", err)
	}
}
