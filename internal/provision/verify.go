package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
)

// Verified says whether an image's device holds what was sealed.
type Verified struct {
	Image       int64    `json:"image_id"`
	Key         string   `json:"s3_key"`
	Device      int64    `json:"device_id"`
	Sealed      string   `json:"sealed"` // digest of the tree
	Found       string   `json:"found"`
	Same        bool     `json:"same"`
	Seal        string   `json:"seal"` // the record on the device: agrees with the journal, differs, or none
	Differences []string `json:"differences"`
	Unreadable  string   `json:"unreadable,omitempty"` // why the device, or what is on it, cannot be read
}

// errUnreadable is returned when a device cannot be read, or what is on it.
var errUnreadable = errors.New("unreadable")

// unreadable are the kernel's errors for a file system it cannot read, on a device it
// has. Any other error says nothing about the image.
var unreadable = []error{
	syscall.EIO, syscall.EUCLEAN, syscall.EBADMSG, syscall.EINVAL, syscall.ESTALE, syscall.ENODATA, syscall.EREMOTEIO,
}

// Verify reads an image's device through a fresh read-only mount and compares it with the
// manifest of its seal. Meanwhile the device is active, read-only. The caller holds the
// pool's lock. A lost or unreadable device is a result, not an error.
func (h *Host) Verify(ctx context.Context, image int64) (Verified, error) {
	v, err := h.compareWithSeal(ctx, image)
	if errors.Is(err, errUnreadable) || errors.Is(err, ErrResultLost) || errors.Is(err, devmapper.ErrNotFound) {
		v.Same, v.Unreadable = false, err.Error()
		return v, nil
	}
	return v, err
}

func (h *Host) compareWithSeal(ctx context.Context, image int64) (v Verified, err error) {
	img, err := h.store.Image(ctx, image)
	if err != nil {
		return v, err
	}
	v = Verified{Image: img.ID, Key: img.Key, Differences: []string{}}
	d, err := h.Devices.ofImage(ctx, img)
	if err != nil {
		return v, err
	}
	v.Device, v.Sealed = d.ID, img.Tree.Digest
	path, err := h.pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, true)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, h.pool.Deactivate(devmapper.ID(d.ID))) }()
	var found *fstree.Inventory
	err = inspect(path, func(root *os.File) (err error) {
		if found, err = extract.ReadBack(ctx, root); err != nil {
			return fmt.Errorf("device %d cannot be read: %w", d.ID, err)
		}
		var lines []string
		v.Seal, lines, err = h.compareSealRecord(ctx, root, img, d)
		v.Differences = append(v.Differences, lines...)
		return err
	})
	if slices.ContainsFunc(unreadable, func(is error) bool { return errors.Is(err, is) }) {
		return v, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if err != nil {
		return v, err
	}
	v.Found = found.Digest()
	v.Same = v.Found == v.Sealed && v.Seal != sealDiffers
	if v.Found != v.Sealed {
		v.Differences = append(h.Manifests.differences(v.Sealed, found), v.Differences...)
	}
	return v, nil
}

// readTree reads a device's whole tree.
func readTree(ctx context.Context, path string) (found *fstree.Inventory, err error) {
	err = inspect(path, func(root *os.File) (err error) {
		found, err = extract.ReadBack(ctx, root)
		return err
	})
	return found, err
}

// inspect calls look with the root of a device's file system, mounted read-only.
func inspect(path string, look func(root *os.File) error) (err error) {
	m, err := devmapper.MountDetached(path, ext4.MountInspect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return look(m.Root())
}

// Verifiable returns the ids of the images with a sealed tree.
func (h *Host) Verifiable(ctx context.Context) ([]int64, error) {
	return h.store.VerifiableImages(ctx)
}
