package extract

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/countdown"
	"imagemanager.internal/test/images"
)

// Listing a directory looks at the context again and again, and ends with it.
func TestContextIsLookedAt(t *testing.T) {
	dir := openTemp(t)
	n := countdown.Looks(t, "a directory", func(ctx context.Context) error {
		_, err := unix.Seek(int(dir.Fd()), 0, io.SeekStart)
		check(t, err)
		_, err = readNames(ctx, int(dir.Fd()))
		return err
	})
	if n < 2 {
		t.Errorf("a directory looks %d times", n)
	}
}

// cancelling cancels when the reader gets to an offset.
type cancelling struct {
	io.ReaderAt
	at     int64
	cancel context.CancelCauseFunc
	after  int // reads after it
}

var errStop = errors.New("stop")

func (c *cancelling) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.at {
		c.after++
		c.cancel(errStop)
	}
	return c.ReaderAt.ReadAt(p, off)
}

// A cancelled extraction ends within two buffers, also inside of one large file, and says
// why.
func TestCancel(t *testing.T) {
	src := images.Sized(1 << 30)
	plan, err := archive.Check(t.Context(), src, src.Size(), archive.Options{})
	check(t, err)
	root := newDisk(t, 2<<30).detached(0)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	slow := &cancelling{ReaderAt: src, at: 64 << 20, cancel: cancel}
	var done int64
	_, err = Write(ctx, slow, plan, root, func(n int64) { done = n })
	if !errors.Is(err, errStop) {
		t.Errorf("ended with %v", err)
	}
	if slow.after > 2 || done > 66<<20 {
		t.Errorf("%d reads after the cancellation, %d bytes written", slow.after, done)
	}
}

// Reading back with a cancelled context ends at once.
func TestCancelledReadBack(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	dir, err := os.Open(".")
	check(t, err)
	defer dir.Close()
	if _, err := ReadBack(ctx, dir); !errors.Is(err, errStop) {
		t.Errorf("read back: %v", err)
	}
}

// An archive that changed after its check is ErrChanged, and nothing is written.
func TestChanged(t *testing.T) {
	b := images.Tar(images.Root(images.Entry{Name: "var/x", Body: strings.Repeat("x", 5000)})...)
	for name, change := range map[string]func(*os.File) error{
		"cut":     func(f *os.File) error { return f.Truncate(int64(len(b)) - 2048) },
		"touched": func(f *os.File) error { return os.Chtimes(f.Name(), time.Time{}, time.Unix(1, 0)) },
		"written": func(f *os.File) error {
			_, err := f.WriteAt([]byte("y"), 600)
			return errors.Join(err, f.Truncate(int64(len(b))+1))
		},
	} {
		f, err := os.Create(t.TempDir() + "/x.tar")
		check(t, err)
		_, err = f.Write(b)
		check(t, err)
		plan, err := archive.Check(t.Context(), f, int64(len(b)), archive.Options{})
		check(t, err)
		check(t, change(f))
		root := openTemp(t)
		if _, err := Write(t.Context(), f, plan, root, nil); !errors.Is(err, archive.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := os.ReadDir(root.Name()); len(list) > 0 || err != nil {
			t.Errorf("%s: written anyway: %v %v", name, list, err)
		}
		check(t, f.Close())
	}
}
