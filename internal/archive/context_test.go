package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/test/images"
)

// lasting is a context that ends when it has been looked at so often.
type lasting struct {
	context.Context //nolint:containedctx // it is one
	left            atomic.Int64
}

func (l *lasting) Err() error {
	if l.left.Add(-1) < 0 {
		return errStop
	}
	return nil
}

func lastingFor(t *testing.T, looks int64) *lasting {
	l := &lasting{Context: t.Context()}
	l.left.Store(looks)
	return l
}

// looks counts how often do looks at its context, and checks that it ends with it,
// whenever that is.
func looks(t *testing.T, what string, do func(context.Context) error) int64 {
	t.Helper()
	const plenty = 1 << 40
	l := lastingFor(t, plenty)
	if err := do(l); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	total := plenty - l.left.Load()
	for n := range total {
		l := lastingFor(t, n)
		if err := do(l); !errors.Is(err, errStop) {
			t.Errorf("%s: ended at look %d of %d, and returned %v", what, n+1, total, err)
		}
		if more := -l.left.Load() - 2; more > 0 { // for the cause it is looked at, too
			t.Errorf("%s: looked %d times more after the end", what, more)
		}
	}
	return total
}

// Whatever an archive can make long looks at the context again and again, and ends with
// it.
func TestContextIsLookedAt(t *testing.T) {
	layers := [][]byte{images.Tar(images.Root()...), images.Tar(images.Entry{Name: "etc/.wh.hello"})}
	whole := images.Tar(images.Image{Layers: layers}.Docker25()...)
	judged := func(ctx context.Context) error {
		_, err := Check(ctx, bytes.NewReader(whole), int64(len(whole)), Options{})
		return err
	}
	if n := looks(t, "judging", judged); n < 40 {
		t.Errorf("judging looks %d times", n)
	}
	plan, err := judgeBytes(t, images.Tar(images.Root(numberedFiles(5_000, "usr/%05d")...)...), Strict)
	check(t, err)
	long := images.Entry{Name: "usr/l", Link: "x", PAX: []string{"linkpath=" + strings.Repeat("./", 2_000)}}
	links, err := judgeBytes(t, images.Tar(images.Root(long)...), Strict)
	check(t, err)
	links.tree.index = map[key]id{} // given up by the judge
	dir := openTemp(t)
	for what, c := range map[string]struct {
		least int64
		do    func(context.Context) error
	}{
		"a document": {47, func(ctx context.Context) error {
			_, err := parseDocument(ctx, []byte("["+strings.Repeat("0,", 49_000)+"0]"))
			return err
		}},
		"a walk over all nodes": {5, func(ctx context.Context) error {
			return plan.tree.each(ctx,
				func(id) error { return nil })
		}},
		"what it needs": {5, func(ctx context.Context) error { return (&Plan{tree: plan.tree}).measure(ctx) }},
		"its links": {2, func(ctx context.Context) error {
			w := &walker{tree: links.tree}
			for range 5 {
				if _, err := w.escapes(ctx, links.tree.count-1); err != nil {
					return err
				}
			}
			return nil
		}},
		"its manifest": {5, func(ctx context.Context) error {
			_, err := manifestOf(ctx, plan, make([]*[32]byte, plan.tree.count), nil)
			return err
		}},
		"a directory": {2, func(ctx context.Context) error {
			_, err := unix.Seek(int(dir.Fd()), 0, io.SeekStart)
			check(t, err)
			_, err = readNames(ctx, int(dir.Fd()))
			return err
		}},
	} {
		if n := looks(t, what, c.do); n < c.least {
			t.Errorf("%s looks %d times", what, n)
		}
	}
}
