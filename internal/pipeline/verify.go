package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
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

// errUnreadable says that what should be on a device is not to be had from it.
var errUnreadable = errors.New("unreadable")

// unreadable are the errors with which a kernel says so of a file system, once its device
// is there. Any other is one of looking: it says nothing about the image.
var unreadable = []error{
	syscall.EIO, syscall.EUCLEAN, syscall.EBADMSG, syscall.EINVAL, syscall.ESTALE, syscall.ENODATA, syscall.EREMOTEIO,
}

// Verify reads an image's device through a fresh read-only mount and compares it with the
// manifest of its seal. The device is active, read-only, meanwhile; the caller holds the
// pool's lock. A device that is lost or cannot be read is a result, and no error.
func (p *Pipeline) Verify(ctx context.Context, image int64) (Verified, error) {
	v, err := p.prove(ctx, image)
	if errors.Is(err, errUnreadable) || errors.Is(err, errLost) || errors.Is(err, devmapper.ErrNotFound) {
		v.Same, v.Unreadable = false, err.Error()
		return v, nil
	}
	return v, err
}

func (p *Pipeline) prove(ctx context.Context, image int64) (v Verified, err error) {
	img, err := p.Store.Image(ctx, image)
	if err != nil {
		return v, err
	}
	v = Verified{Image: img.ID, Key: img.Key, Differences: []string{}}
	d, err := p.imageDevice(ctx, &Job{image: img})
	if err != nil {
		return v, err
	}
	v.Device, v.Sealed = d.ID, img.Tree.Digest
	path, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, true)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, p.Pool.Deactivate(devmapper.ID(d.ID))) }()
	var found *archive.Manifest
	err = inspect(path, func(root *os.File) (err error) {
		if found, err = archive.ReadManifest(ctx, root); err != nil {
			return fmt.Errorf("device %d cannot be read: %w", d.ID, err)
		}
		var lines []string
		v.Seal, lines, err = p.compareSeal(ctx, root, img, d)
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
		v.Differences = append(p.nameDifferences(v.Sealed, found), v.Differences...)
	}
	return v, nil
}

// nameDifferences compares a tree with the manifest of its seal.
func (p *Pipeline) nameDifferences(digest string, found *archive.Manifest) []string {
	sealed, err := p.loadManifest(digest)
	if err != nil {
		return []string{"the digest differs; what differs cannot be named: " + err.Error()}
	}
	const most = 100
	return sealed.Diff(found, most)
}

// readTree reads everything that a device holds.
func readTree(ctx context.Context, path string) (found *archive.Manifest, err error) {
	err = inspect(path, func(root *os.File) (err error) {
		found, err = archive.ReadManifest(ctx, root)
		return err
	})
	return found, err
}

// inspect calls look with the root of a device's file system, mounted read-only.
func inspect(path string, look func(root *os.File) error) (err error) {
	m, err := devmapper.MountDetached(path, devmapper.MountInspect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return look(m.Root())
}

// Sealed returns the ids of the images that can be verified.
func (p *Pipeline) Sealed(ctx context.Context) ([]int64, error) {
	images, err := p.Store.Images(ctx)
	var ids []int64
	for _, img := range images {
		if img.State == store.StateActive && img.Tree != nil {
			ids = append(ids, img.ID)
		}
	}
	return ids, err
}
