package pipeline

import (
	"context"
	"errors"
	"fmt"

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
	Differences []string `json:"differences"`
}

// Verify reads an image's device through a fresh read-only mount and compares it with the manifest of its seal. The device is active,
// read-only, meanwhile; the caller holds the pool's lock.
func (p *Pipeline) Verify(ctx context.Context, image int64) (v Verified, err error) {
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
	found, err := readTree(ctx, path)
	if err != nil {
		return v, fmt.Errorf("device %d cannot be read: %w", d.ID, err)
	}
	v.Found = found.Digest()
	if v.Same = v.Found == v.Sealed; v.Same {
		return v, nil
	}
	sealed, err := p.loadManifest(v.Sealed)
	if err != nil {
		v.Differences = append(v.Differences, "the digest differs; what differs cannot be named: "+err.Error())
		return v, nil
	}
	const most = 100
	v.Differences = sealed.Diff(found, most)
	return v, nil
}

// readTree reads everything that a device holds.
func readTree(ctx context.Context, path string) (_ *archive.Manifest, err error) {
	m, err := devmapper.MountDetached(path, devmapper.MountInspect)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return archive.ReadManifest(ctx, m.Root())
}

// Sealed returns the ids of the images that can be verified.
func (p *Pipeline) Sealed(ctx context.Context) ([]int64, error) {
	images, err := p.Store.Images(ctx)
	var ids []int64
	for _, img := range images {
		if img.State == store.Active && img.Tree != nil {
			ids = append(ids, img.ID)
		}
	}
	return ids, err
}
