// Package archive reads a tarball from an untrusted source. It plans how the tree in it
// is written, or rejects it and says why.
//
// [Check] reads headers only. It detects the shape of the archive: a bundle with rootfs/,
// a plain root file system, a docker save archive or an OCI image layout. It builds the
// finished tree in memory, with all layers applied, and judges every name by one table of
// [Rules], before anything is written. The caller chooses the [Policy], never the
// archive.
//
// The result is a [Plan] or a [Rejection]. Package extract writes the tree of a plan; it
// holds no policy, so no other writer beside it could forget one.
//
// The package neither logs nor retries nor counts.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"imagemanager.internal/internal/archive/fstree"
)

// ErrChanged is returned when the archive is not the file that was checked, or changed
// meanwhile: it has fewer bytes than it should, or its size, inode or times differ.
var ErrChanged = errors.New("archive changed while it was in use")

// Options say what is accepted. Zero values stand for the defaults.
type Options struct {
	Policy   Policy   // Strict by default
	Limits   Limits   // fields of 0 have the values of DefaultLimits
	Layout   []string // directories that a root file system must have; if nil, etc, usr and var
	Platform Platform // chosen from an image index; by default linux and this machine's architecture
}

// Platform is what an image runs on, in the terms of the OCI image specification, which
// are those of Go.
type Platform struct {
	OS, Architecture string
}

func (o Options) withDefaults() (Options, error) {
	policy, err := ParsePolicy(string(o.Policy))
	if err != nil {
		return o, err
	}
	o.Policy, o.Limits = policy, o.Limits.withDefaults()
	if o.Layout == nil {
		o.Layout = []string{"etc", "usr", "var"}
	}
	if o.Platform == (Platform{}) {
		o.Platform = Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	return o, nil
}

// Check judges the archive in the first size bytes of src and plans its extraction. It
// reads headers, and the configuration of an image in layers. It also reads the layers to
// verify their digests. It writes nothing.
//
// The error is a *Rejection for an archive that is not accepted. Other errors are
// ErrChanged, the cause of ctx, and those of src.
func Check(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Plan, error) {
	report, err := Judge(ctx, src, size, opts)
	if err != nil {
		return nil, err
	}
	if r := report.Rejection(); r != nil {
		return nil, r
	}
	return report.Plan, nil
}

// Judge is Check for whoever asks for all that is found. It returns no *Rejection as its
// error: a refused archive has a Report, too.
func Judge(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Report, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	stamp := stampOf(src)
	c := &checker{src: src, opts: opts, findings: newFindings(opts.Policy)}
	plan, err := c.check(ctx, size)
	err = c.findings.settle(err)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it has fewer than %d bytes", ErrChanged, size)
	}
	if err != nil {
		return nil, err
	}
	if plan != nil {
		if plan.stamp = stamp; !plan.Unchanged(src) {
			return nil, ErrChanged
		}
	}
	return c.report(plan), nil
}

// checker holds the inputs of one Check, and what it found.
type checker struct {
	src      io.ReaderAt
	opts     Options
	findings *findings
	shape    Shape // once it is known
}

func (c *checker) check(ctx context.Context, size int64) (*Plan, error) {
	if err := detectFormat(c.src, size); err != nil {
		return nil, err
	}
	if size > c.opts.Limits.ImageBytes {
		return nil, refuse(ImageTooBig, "the archive has %d bytes, the limit is %d", size, c.opts.Limits.ImageBytes)
	}
	outer := fstree.New()
	b := &treeBuilder{tree: outer, budget: newBudget(c.opts.Limits), findings: c.findings}
	if err := b.addEntries(ctx, c.src, size); err != nil {
		return nil, err
	}
	c.shape = detectShape(outer, fstree.Root, c.opts.Layout)
	switch c.shape {
	case Docker, OCI:
		if b.ambiguous != nil {
			c.findings.reject(b.ambiguous)
		}
		return c.checkImage(ctx, outer, c.shape)
	case Bundle:
		return c.judgeTree(ctx, outer, outer.Child(fstree.Root, "rootfs"), c.shape)
	default:
		return c.judgeTree(ctx, outer, fstree.Root, c.shape)
	}
}

// judgeTree judges a finished tree below root and plans its extraction.
func (c *checker) judgeTree(ctx context.Context, t *fstree.Tree, root fstree.ID, shape Shape) (*Plan, error) {
	j := &judge{tree: t, root: root, opts: c.opts, findings: c.findings}
	if err := j.judgeAll(ctx); err != nil {
		return nil, err
	}
	if !c.findings.incomplete { // or what was not read would be missing here
		if r := asRejection(checkLayout(t, root, shape, c.opts.Layout)); r != nil {
			c.findings.reject(r)
		}
	}
	if c.findings.worst != nil {
		return nil, c.findings.worst
	}
	t.FreeIndex()
	collectGarbage(t.Len()) // the replaced targets of a hundred thousand links are many MiB
	plan := &Plan{
		Shape: shape, Policy: c.opts.Policy, Adjusted: c.findings.adjusted, AdjustedBy: c.findings.adjustedBy,
		Adjustments: c.findings.adjustments,
		Tree:        t, Root: root,
	}
	if err := plan.measure(ctx); err != nil {
		return nil, err
	}
	return plan, nil
}

// manyNodes is how many nodes make a garbage collection between two phases worthwhile.
const manyNodes = 10_000

// collectGarbage runs the collector after a phase with many nodes. A phase with a hundred
// thousand leaves many MiB, and the memory of the next phase must not add to them.
func collectGarbage(nodes int) {
	if nodes > manyNodes {
		runtime.GC()
	}
}
