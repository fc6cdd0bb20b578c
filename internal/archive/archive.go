// Package archive turns a tarball that nobody trusts into a tree of files on an empty
// file system, or refuses it and says why.
//
// It has two halves. The first, [Check], reads headers only: it recognises the shape (a
// bundle with rootfs/, a plain root file system, a docker save archive, an OCI image
// layout), builds the finished tree in memory, layers applied, and judges it by the one
// table of [Rules] before anything is created. The second, [Extract], writes the judged
// tree; it holds no policy and follows no symbolic link. [ReadManifest] reads a written
// tree back, so that it can be proved equal to what was meant to be written.
//
// The policy is chosen by the caller and never by the archive. The package neither logs
// nor retries nor counts.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"imagemanager.internal/internal/archive/tarball"
)

// ErrChanged says that the archive is not, or no longer, the file that was checked: it
// has fewer bytes than it should, or its size, inode or times differ between the passes.
var ErrChanged = errors.New("archive changed while it was in use")

// Options say what is accepted. Zero values mean the defaults.
type Options struct {
	Policy   Policy   // Strict by default
	Limits   Limits   // fields that are 0 have the values of DefaultLimits
	Layout   []string // directories that a root file system must have; etc, usr, var by default
	Platform Platform // chosen from an image index; linux and the architecture of this machine by default
}

// Platform names what an image runs on, in the terms of the OCI image specification
// (those of Go).
type Platform struct {
	OS, Architecture string
}

func (o Options) withDefaults() (Options, error) {
	policy, err := ParsePolicy(string(o.Policy))
	if err != nil {
		return o, err
	}
	o.Policy, o.Limits = policy, o.Limits.withDefaults()
	if len(o.Layout) == 0 {
		o.Layout = []string{"etc", "usr", "var"}
	}
	if o.Platform == (Platform{}) {
		o.Platform = Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	return o, nil
}

// Check judges the archive in the first size bytes of src and plans its extraction. It
// reads headers and the data of image configurations; of images in layers also the
// layers, whose digests it verifies. Nothing is written.
//
// A refused archive is a *Rejection. Other errors are ErrChanged, the cause of ctx, and
// those of src.
func Check(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Plan, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	stamp := stampOf(src)
	c := &checker{src: src, opts: opts}
	plan, err := c.check(ctx, size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it has fewer than %d bytes", ErrChanged, size)
	}
	if err != nil {
		return nil, err
	}
	if !stamp.same(src) {
		return nil, ErrChanged
	}
	plan.stamp = stamp
	return plan, nil
}

// checker is what one Check works with.
type checker struct {
	src  io.ReaderAt
	opts Options
}

func (c *checker) check(ctx context.Context, size int64) (*Plan, error) {
	if err := detect(c.src, size); err != nil {
		return nil, err
	}
	if size > c.opts.Limits.ImageBytes {
		return nil, refuse(ImageTooBig, "the archive has %d bytes, the limit is %d", size, c.opts.Limits.ImageBytes)
	}
	outer := newTree()
	in := &intake{tree: outer, budget: newBudget(c.opts.Limits)}
	if err := in.read(ctx, c.src, size); err != nil {
		return nil, err
	}
	switch shape := recognise(outer); shape {
	case Docker, OCI:
		return c.image(ctx, outer, shape)
	case Bundle:
		return c.finish(ctx, outer, outer.child(rootID, "rootfs"), shape)
	default:
		return c.finish(ctx, outer, rootID, shape)
	}
}

// finish judges a finished tree below root.
func (c *checker) finish(ctx context.Context, t *tree, root id, shape Shape) (*Plan, error) {
	j := &judge{tree: t, root: root, opts: c.opts}
	if err := j.all(ctx); err != nil {
		return nil, err
	}
	if err := layout(t, root, shape, c.opts.Layout); err != nil {
		return nil, err
	}
	t.seal()
	collect(t.count) // of a hundred thousand rewritten links the originals are many MiB
	plan := &Plan{
		Shape: shape, Policy: c.opts.Policy, Adjusted: j.adjusted, Adjustments: j.adjustments, tree: t,
		root: root,
	}
	if err := plan.measure(ctx); err != nil {
		return nil, err
	}
	return plan, nil
}

// intake reads a tarball's entries into a tree.
type intake struct {
	tree   *tree
	budget *budget
	layer  uint8 // 0 for an archive without layers
	base   int64 // where the tarball lies in the archive
	parts  [][]byte

	waiting *waiting
}

func (in *intake) read(ctx context.Context, src io.ReaderAt, size int64) error {
	err := in.each(ctx, src, size, func(h *tarball.Header) error {
		if err := in.budget.entry(h.Size); err != nil {
			return place(err, h, in.base)
		}
		if err := in.add(h); err != nil {
			return place(err, h, in.base)
		}
		return place(checkTreeText(in.tree, in.budget.limits), h, in.base)
	})
	if err != nil {
		return err
	}
	return in.settle()
}

// each calls do for the entries in order.
func (in *intake) each(ctx context.Context, src io.ReaderAt, size int64, do func(*tarball.Header) error) error {
	limits := in.budget.limits
	r := tarball.NewReader(io.NewSectionReader(src, in.base, size), size,
		tarball.Limits{Record: limits.RecordBytes, Total: limits.TextBytes - in.budget.text})
	defer func() { in.budget.text += r.Text() }()
	for n := 0; ; n++ {
		h, err := r.Next(ctx)
		switch {
		case errors.Is(err, io.EOF) && n == 0 && in.layer == 0:
			return refuse(EmptyArchive, "the archive has no entries")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return framing(err, in.base)
		}
		if err := do(h); err != nil {
			return err
		}
	}
}

// framing makes a rejection of a defect in the tarball's headers.
func framing(err error, base int64) error {
	var e *tarball.Error
	if !errors.As(err, &e) {
		return err
	}
	r := refuse(Reason(e.Code), "%s", e.Detail)
	r.Entry, r.Index, r.Offset = shorten(e.Name), e.Index, base+e.Offset
	return r
}

// place says which entry a rejection is about.
func place(err error, h *tarball.Header, base int64) error {
	if r := asRejection(err); r != nil {
		r.Entry, r.Index, r.Offset = shorten(string(h.Name)), h.Index, base+h.Offset
	}
	return err
}
