package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/direct"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
)

// Engine is a way to write an image's tree to its device.
type Engine string

// The engines make the same tree of the same archive.
const (
	EngineDirect  Engine = "direct"  // blocks, laid out by this program; nothing is mounted
	EngineMounted Engine = "mounted" // files, through a detached mount
)

// Verification is a way to compare a device with what was written to it, before the seal.
type Verification string

const (
	// VerifyDevice reads every block back that was written. It is for the direct engine;
	// the other one does not know its blocks, and reads back as for VerifyKernel.
	VerifyDevice Verification = "device"
	// VerifyKernel reads the whole tree through a fresh mount.
	VerifyKernel Verification = "kernel"
)

// sealer returns the seal record for a written tree.
type sealer func(*fstree.Inventory) ([]byte, error)

// engine writes one tree to one device. Its methods are called in their order; close ends
// it at any time.
type engine interface {
	write(ctx context.Context, seal sealer, progress func(int64)) (*fstree.Inventory, error)
	sync() error
	readBack(ctx context.Context) error // ErrReadBack: the device holds something else
	close() error
}

// engines opens the engine of the configuration.
type engines struct {
	engine Engine
	verify Verification
	sample int
	direct atomic.Int64 // opened so far
}

// open returns the engine for a plan. If the direct engine cannot write it, the error is
// direct.ErrUnsupported, and the mounted engine returned beside it can.
func (x *engines) open(ctx context.Context, path string, src *os.File, plan *archive.Plan) (engine, error) {
	mounted := &mountedEngine{path: path, src: src, plan: plan}
	if x.engine != EngineDirect {
		return mounted, nil
	}
	device, err := devmapper.OpenExclusive(path)
	if err != nil {
		return nil, err
	}
	e := &directEngine{path: path, device: device, verify: x.verify == VerifyDevice}
	if e.writer, err = direct.LayOut(ctx, src, plan, device); err != nil {
		return mounted, errors.Join(translate(err), device.Close())
	}
	e.kernel = x.readsByKernel()
	return e, nil
}

// readsByKernel reports whether the next tree is read back through a mount: each one, or
// the first after the start and then one in sample.
func (x *engines) readsByKernel() bool {
	if x.verify != VerifyDevice {
		return true
	}
	n := x.direct.Add(1) - 1
	return x.sample > 0 && n%int64(x.sample) == 0
}

// mountedEngine writes through a detached mount.
type mountedEngine struct {
	path    string
	src     *os.File
	plan    *archive.Plan
	mount   *ext4.Mount
	written *fstree.Inventory
}

func (e *mountedEngine) write(ctx context.Context, seal sealer, progress func(int64)) (*fstree.Inventory, error) {
	var err error
	if e.mount, err = devmapper.MountDetached(e.path, ext4.MountBuild); err != nil {
		return nil, err
	}
	if e.written, err = extract.Write(ctx, e.src, e.plan, e.mount.Root(), progress); err != nil {
		return nil, err
	}
	record, err := seal(e.written)
	if err != nil {
		return nil, err
	}
	return e.written, extract.WriteSealRecord(e.mount.Root(), record)
}

func (e *mountedEngine) sync() error { return errors.Join(e.mount.Sync(), e.mount.Close()) }

func (e *mountedEngine) readBack(ctx context.Context) error {
	return compareTree(ctx, e.path, e.written)
}

func (e *mountedEngine) close() error {
	if e.mount == nil {
		return nil
	}
	return e.mount.Close()
}

// directEngine writes the device itself, and compares blocks while it writes.
type directEngine struct {
	path    string
	device  *os.File
	writer  *direct.Writer
	verify  bool // by blocks
	kernel  bool // through a mount
	written *fstree.Inventory
}

func (e *directEngine) write(ctx context.Context, seal sealer, progress func(int64)) (_ *fstree.Inventory, err error) {
	e.written, err = e.writer.Write(ctx, direct.Options{Seal: seal, Verify: e.verify, Progress: progress})
	return e.written, translate(err)
}

func (e *directEngine) sync() error { return e.writer.Sync() }

func (e *directEngine) readBack(ctx context.Context) error {
	if err := errors.Join(translate(e.writer.Verify()), e.close()); err != nil || !e.kernel {
		return err
	}
	return compareTree(ctx, e.path, e.written)
}

func (e *directEngine) close() error {
	e.writer.Close()
	if err := e.device.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// translate adds the error of this package to one of the direct engine.
func translate(err error) error {
	switch {
	case errors.Is(err, direct.ErrVerify), errors.Is(err, direct.ErrNotNew):
		return fmt.Errorf("%w: %w", ErrReadBack, err)
	case errors.Is(err, direct.ErrNoRoom):
		return fmt.Errorf("%w: %w: raise DEVICE_SIZE", ErrTooSmall, err)
	}
	return err
}

// compareTree compares what the kernel finds on a device with what was written.
func compareTree(ctx context.Context, path string, written *fstree.Inventory) error {
	found, err := readTree(ctx, path)
	if err != nil {
		return err
	}
	if found.Digest() != written.Digest() {
		return fmt.Errorf("%w: %s", ErrReadBack, strings.Join(written.Diff(found, 5), "; "))
	}
	return nil
}
