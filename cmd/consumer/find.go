package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"imagemanager.internal/internal/store"
)

// find returns the images with this id or key, oldest first; at least one.
func (s *system) find(ctx context.Context, name string) ([]store.Image, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		img, err := s.store.Image(ctx, id)
		return []store.Image{img}, err
	}
	images, err := s.store.ByKey(ctx, name)
	if err == nil && len(images) == 0 {
		return nil, fmt.Errorf("key %q: %w; `consumer images` lists them", name, store.ErrNotFound)
	}
	return images, err
}

// findActive returns the newest active image with this id or key; without an active
// one, the newest.
func (s *system) findActive(ctx context.Context, name string) (int64, error) {
	images, err := s.find(ctx, name)
	if err != nil {
		return 0, err
	}
	for _, img := range slices.Backward(images) {
		if img.State == store.StateActive {
			return img.ID, nil
		}
	}
	return images[len(images)-1].ID, nil
}
