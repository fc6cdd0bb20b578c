package extract

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"runtime"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// defective panics as a defect does.
func defective() { clear(([]byte)(nil)[:none]) }

var none = 1

// panicking is a source that has a defect behind an offset.
type panicking struct {
	io.ReaderAt
	from int64
}

func (p panicking) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.from {
		defective()
	}
	return p.ReaderAt.ReadAt(b, off)
}

// panickingHash is a hash with a defect.
type panickingHash struct{ hash.Hash }

func (panickingHash) Write([]byte) (int, error) { defective(); return 0, nil }

// isPanic checks that an error is a panic, with the stack of the goroutine that did it.
func isPanic(t *testing.T, err error, where string) {
	t.Helper()
	var p *archive.Panic
	if !errors.As(err, &p) || !strings.Contains(string(p.Stack), where) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	if _, ok := p.Value.(runtime.Error); !ok {
		t.Errorf("the value %v", p.Value)
	}
}

// A defect that shows while a tree is written is an error of that attempt, wherever it
// shows; nothing is left open.
func TestPanicWhileWriting(t *testing.T) {
	b := images.Tar(images.Root(images.Entry{Name: "var/big", Body: strings.Repeat("x", 3*bufferSize)},
		images.Entry{Name: "var/small", Body: "x"})...)
	openTemp(t) // brings the runtime's own descriptors
	open := entries(t, "/proc/self/fd")
	for name, c := range map[string]struct {
		from     int64
		progress func(int64)
		damage   func(*archive.Plan)
		where    string
	}{
		"first file":         {from: 0, where: "panicking.ReadAt"},
		"amid a large file":  {from: bufferSize + 4096, where: "panicking.ReadAt"},
		"in the caller's":    {from: 1 << 40, progress: func(int64) { defective() }, where: "TestPanicWhileWriting"},
		"walk over the tree": {from: 1 << 40, damage: func(p *archive.Plan) { p.Tree = &fstree.Tree{} }, where: "At("},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := judgeBytes(t, b, archive.Strict)
			check(t, err)
			if c.damage != nil {
				c.damage(plan)
			}
			root := openTemp(t)
			_, err = Write(t.Context(), panicking{bytes.NewReader(b), c.from}, plan, root, c.progress)
			isPanic(t, err, c.where)
		})
	}
	if now := entries(t, "/proc/self/fd"); now != open {
		t.Errorf("%d descriptors, %d before", now, open)
	}
}

// Every goroutine that is started here has its panic made an error, and the workers go on
// with the other jobs.
func TestPanicIsAnError(t *testing.T) {
	isPanic(t, withOnlyCapabilities(0, 0)(func() error { defective(); return nil }), "TestPanicIsAnError")
	h := &hasher{hash: panickingHash{}}
	check(t, h.add([]byte("x"), true))
	isPanic(t, h.add([]byte("y"), true), "panickingHash.Write")
	_, err := h.sum()
	isPanic(t, err, "panickingHash.Write")
	ctx, workers := startWorkers(t.Context(), func(work func() error) error { return work() })
	run := 0
	for _, job := range []func() error{func() error { defective(); return nil }, func() error { run++; return nil }} {
		workers.jobs <- func(context.Context, *bufferPair) error { return job() }
	}
	isPanic(t, workers.finish(ctx, nil), "TestPanicIsAnError")
	if run != 1 {
		t.Error("the job behind it was not run")
	}
}
