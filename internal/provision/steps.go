package provision

import (
	"context"
	"time"

	"imagemanager.internal/internal/span"
)

// unpackStep is a part of an unpack that takes time of its own.
type unpackStep string

// The steps, in the order in which an unpack takes them.
const (
	stepJudge    unpackStep = "judge"    // decide on every entry of the archive
	stepReserve  unpackStep = "reserve"  // wait for space in the pool and on the disk
	stepMkfs     unpackStep = "mkfs"     // make the thin device and its file system
	stepExtract  unpackStep = "extract"  // write the tree
	stepSync     unpackStep = "sync"     // wait until the tree is on the device
	stepReadBack unpackStep = "readback" // read the tree from the device and compare it
	stepSeal     unpackStep = "seal"     // keep the manifest, and record the seal
)

var unpackSteps = []unpackStep{
	stepJudge, stepReserve, stepMkfs, stepExtract, stepSync, stepReadBack, stepSeal,
}

// spanCommit names the last step of every stage: the durable record of its result.
const spanCommit = "commit"

// step begins a step. The returned function ends it: with the error that it came to, or
// nil.
func (r *Recorder) step(ctx context.Context, name unpackStep) (context.Context, func(error)) {
	began := time.Now()
	ctx, end := span.Start(ctx, string(name))
	return ctx, func(err error) {
		r.metrics.stepTook(name, time.Since(began))
		end(err)
	}
}

// inStep does a step.
func (r *Recorder) inStep(ctx context.Context, name unpackStep, do func(context.Context) error) error {
	ctx, end := r.step(ctx, name)
	err := do(ctx)
	end(err)
	return err
}
