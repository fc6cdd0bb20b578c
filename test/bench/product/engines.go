package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/direct"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper/ext4"
)

// engine is a way to bring a judged tree onto a device with an empty file system, up to
// the moment when the device is used by nobody.
type engine struct {
	name   string
	unpack func(ctx context.Context, src *os.File, plan *archive.Plan, device string) error
}

// engines are all there are. Another one is one more line.
func engines(lap func(phase string)) []engine {
	return []engine{
		{"direct", straight(lap, true)},
		{"direct, not verified", straight(lap, false)},
		{"mounted", mounted(lap, true)},
		{"mounted, not read back", mounted(lap, false)},
	}
}

// straight writes blocks, and reads them back beside.
func straight(lap func(string), verify bool) func(context.Context, *os.File, *archive.Plan, string) error {
	return func(ctx context.Context, src *os.File, plan *archive.Plan, device string) (err error) {
		f, err := os.OpenFile(device, os.O_RDWR|syscall.O_DIRECT, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w, err := direct.LayOut(ctx, src, plan, f)
		if err != nil {
			return err
		}
		defer w.Close()
		lap("lay out")
		seal := func(written *fstree.Inventory) ([]byte, error) { return []byte(written.Digest()), nil }
		if _, err := w.Write(ctx, direct.Options{Seal: seal, Verify: verify}); err != nil {
			return err
		}
		lap("write")
		if err := w.Sync(); err != nil {
			return err
		}
		lap("sync")
		err = w.Verify()
		lap("verify")
		return err
	}
}

var errDiffers = errors.New("the device holds another tree")

// mounted writes through a mount, and reads everything back through another.
func mounted(lap func(string), verify bool) func(context.Context, *os.File, *archive.Plan, string) error {
	return func(ctx context.Context, src *os.File, plan *archive.Plan, device string) error {
		m, err := ext4.MountDetached(device, ext4.MountBuild)
		if err != nil {
			return err
		}
		written, err := fill(ctx, lap, src, plan, m)
		if err := errors.Join(err, m.Close()); err != nil {
			return err
		}
		lap("unmount")
		if !verify {
			return nil
		}
		return compare(ctx, lap, written, device)
	}
}

func fill(ctx context.Context, lap func(string), src *os.File, plan *archive.Plan, m *ext4.Mount) (
	*fstree.Inventory, error,
) {
	written, err := extract.Write(ctx, src, plan, m.Root(), nil)
	if err != nil {
		return nil, err
	}
	lap("write")
	if err := extract.WriteSealRecord(m.Root(), []byte(written.Digest())); err != nil {
		return nil, err
	}
	lap("seal")
	err = m.Sync()
	lap("sync")
	return written, err
}

func compare(ctx context.Context, lap func(string), written *fstree.Inventory, device string) error {
	m, err := ext4.MountDetached(device, ext4.MountInspect)
	if err != nil {
		return err
	}
	found, err := extract.ReadBack(ctx, m.Root())
	if err == nil && found.Digest() != written.Digest() {
		err = errDiffers
	}
	lap("read back")
	err = errors.Join(err, m.Close())
	lap("unmount again")
	return err
}
