package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"imagemanager.internal/internal/store"
)

// namesText is how images and snapshots are named.
const namesText = `An image is named by

  its id                  17
  its key                 images/debian/12.tar
  the end of its key      12.tar, debian/12.tar: whole parts, and of one key only
  its URL                 s3://my-bucket/images/debian/12.tar

A key stands for all versions of its object. Where a command takes one of them, it
takes the newest active one; rm asks for an id if there are several.

A snapshot is named by

  its path                /dev/mapper/cim-images-snap-42
  the id of its device    snapshot:42
`

// find returns the images with this name, oldest first; at least one.
func (s *system) find(ctx context.Context, name string) ([]store.Image, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		img, err := s.store.Image(ctx, id)
		return []store.Image{img}, err
	}
	bucket, key := splitURL(name)
	images, err := s.store.ByKey(ctx, key)
	if bucket != "" {
		images = slices.DeleteFunc(images, func(img store.Image) bool { return img.Bucket != bucket })
	}
	if err == nil && len(images) == 0 && bucket == "" {
		images, err = byEnd(ctx, s.store, name)
	}
	if err == nil && len(images) == 0 {
		err = fmt.Errorf("key %q: %w; `consumer images` lists them", name, store.ErrNotFound)
	}
	return images, err
}

// byEnd returns the images whose key ends with these parts. Their key is the same:
// of several, the operator has to say which.
func byEnd(ctx context.Context, st *store.Store, end string) ([]store.Image, error) {
	images, err := st.ByKeyEnd(ctx, "/"+end)
	var keys []string
	for _, img := range images {
		if !slices.Contains(keys, quoted(img.Key)) {
			keys = append(keys, quoted(img.Key))
		}
	}
	if len(keys) > 1 {
		return nil, &usageError{fmt.Errorf("%q is the end of %d keys: %s", end, len(keys),
			cut(strings.Join(keys, ", "), 200))}
	}
	return images, err
}

// splitURL returns bucket and key of an s3:// URL. Anything else is a key.
func splitURL(name string) (bucket, key string) {
	rest, isURL := strings.CutPrefix(name, "s3://")
	if !isURL {
		return "", name
	}
	bucket, key, _ = strings.Cut(rest, "/")
	return bucket, key
}

// objectKey returns the key that submit is given by any name of an image. What names none
// is the key of an object that the journal does not have.
func (c *call) objectKey(ctx context.Context, name string) (string, error) {
	bucket, key := splitURL(name)
	if bucket != "" && bucket != c.cfg.Bucket {
		return "", &usageError{fmt.Errorf("%s is not in S3_BUCKET, which is %s", quoted(name), c.cfg.Bucket)}
	}
	if bucket != "" || strings.HasPrefix(key, c.cfg.Prefix) {
		return key, nil
	}
	images, err := c.find(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return key, nil
	}
	if err != nil {
		return "", err
	}
	return images[len(images)-1].Key, nil
}

// findActive returns the newest active image with this name; without an active
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
