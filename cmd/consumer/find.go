package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"

	"imagemanager.internal/internal/store"
)

// find returns the images named by the argument, by id or by key, oldest first; at least
// one.
func (s *system) find(ctx context.Context, fs *flag.FlagSet) ([]store.Image, error) {
	if fs.NArg() != 1 {
		return nil, &usageError{fmt.Errorf("%s takes one key or image id", fs.Name())}
	}
	name := fs.Arg(0)
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

// findActive returns the newest active image of those named by the argument; without an
// active one, the newest.
func (s *system) findActive(ctx context.Context, fs *flag.FlagSet) (int64, error) {
	images, err := s.find(ctx, fs)
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
