package archive

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/countdown"
	"imagemanager.internal/test/images"
)

// Whatever an archive can make long looks at the context again and again, and ends with
// it.
func TestContextIsLookedAt(t *testing.T) {
	layers := [][]byte{images.Tar(images.Root()...), images.Tar(images.Entry{Name: "etc/.wh.hello"})}
	whole := images.Tar(images.Image{Layers: layers}.Docker25()...)
	judged := func(ctx context.Context) error {
		_, err := Check(ctx, bytes.NewReader(whole), int64(len(whole)), Options{})
		return err
	}
	if n := countdown.Looks(t, "judging", judged); n < 40 {
		t.Errorf("judging looks %d times", n)
	}
	plan, err := judgeBytes(t, images.Tar(images.Root(images.Numbered(5_000, "usr/%05d")...)...), Strict)
	check(t, err)
	long := images.Entry{Name: "usr/l", Link: "x", PAX: []string{"linkpath=" + strings.Repeat("./", 2_000)}}
	links, err := judgeBytes(t, images.Tar(images.Root(long)...), Strict)
	check(t, err)
	for what, c := range map[string]struct {
		least int64
		do    func(context.Context) error
	}{
		"a document": {47, func(ctx context.Context) error {
			_, err := parseStrictJSON(ctx, []byte("["+strings.Repeat("0,", 49_000)+"0]"))
			return err
		}},
		"what it needs": {5, func(ctx context.Context) error { return (&Plan{Tree: plan.Tree}).measure(ctx) }},
		"its links": {2, func(ctx context.Context) error {
			w := &linkWalker{tree: links.Tree, steps: new(int)}
			for range 5 {
				if err := w.follow(ctx, fstree.ID(links.Tree.Len()-1)); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if n := countdown.Looks(t, what, c.do); n < c.least {
			t.Errorf("%s looks %d times", what, n)
		}
	}
}
