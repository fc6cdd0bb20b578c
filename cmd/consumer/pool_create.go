package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// poolOptions are the flags of `pool create`.
type poolOptions struct {
	name, data, metadata   string
	dataSize, metadataSize size
	blockSize              size
	thins                  int
	replace                bool
}

func poolCreateCommand() *cobra.Command {
	o := poolOptions{dataSize: 100e9, blockSize: 64 << 10}
	cmd := withTable(&cobra.Command{
		Use:   "create",
		Short: "Make the thin pool",
		Long: `Create makes the thin pool, and the database if there is none: on files in STATE_DIR
behind loop devices, or on the block devices given. It may be run again: it
finishes what was cut off, and leaves a finished pool alone. It never touches a
metadata device with a pool on it.`,
		Example: `  consumer pool create --data-size 200GiB
  consumer pool create --data /dev/sdb --metadata /dev/sdc`,
		Annotations: exits(3, 4),
		RunE: needs{common, store.Open}.then(func(ctx context.Context, c *call) error {
			return makePool(ctx, c, o)
		}),
	})
	o.addTo(cmd.Flags())
	return cmd
}

// addTo adds the options to the flags.
func (o *poolOptions) addTo(fs *pflag.FlagSet) {
	fs.StringVar(&o.name, "name", "images", "name of the pool, part of every device's name")
	fs.StringVar(&o.data, "data", "",
		"block device or file for data; a disk is remembered by its name in /dev/disk/by-id "+
			"(default STATE_DIR/pool/data.img)")
	fs.StringVar(&o.metadata, "metadata", "", "block device or file for metadata (default STATE_DIR/pool/metadata.img)")
	fs.Var(&o.dataSize, "data-size", "size of the data file to make; it is sparse")
	fs.Var(&o.metadataSize, "metadata-size",
		"size of the metadata file to make, set aside in full (default by formula)")
	fs.Var(&o.blockSize, "block-size", "pool block size, fixed for its life")
	fs.IntVar(&o.thins, "thins", 10000, "thin devices to size the metadata for")
	fs.BoolVar(&o.replace, "replace", false,
		"in the place of a pool that is lost; the next start makes every image again")
}

// makePool makes the pool, on files behind loop devices or on given block devices. It is
// safe to run again: it finishes what a crash left half-made, and leaves a finished pool
// alone.
func makePool(ctx context.Context, c *call, o poolOptions) error {
	if err := c.lockAll(ctx); err != nil {
		return err
	}
	if err := devmapper.Probe(); err != nil {
		return err
	}
	if err := c.createPool(ctx, o); err != nil {
		return err
	}
	return c.printPool(ctx)
}

// createPool records the intent, makes the files and the pool, and records its existence.
// From then on its metadata is never written to as if it were new.
func (s *system) createPool(ctx context.Context, o poolOptions) error {
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		if row, err = s.beginPool(ctx, o); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if row.State == "ready" && o.replace {
		row, err = s.replacePool(ctx, row, o)
	}
	if err != nil {
		return err
	}
	if row.State == "ready" {
		return s.openPool(ctx)
	}
	if row, err = s.beginElsewhere(ctx, row, o); err != nil {
		return err
	}
	if err := makeFiles(row, o); err != nil {
		return err
	}
	pool, err := devmapper.Create(poolConfig(row))
	if errors.Is(err, devmapper.ErrHasSuperblock) { // ours: the intent was recorded when there was none
		pool, err = devmapper.Finish(ctx, poolConfig(row))
	}
	if err != nil {
		return err
	}
	s.pool = pool
	s.onClose(pool.Close)
	return s.store.FinishPool(ctx)
}

func (s *system) beginPool(ctx context.Context, o poolOptions) (store.Pool, error) {
	row, err := s.newPool(o)
	if err != nil {
		return row, err
	}
	if err := s.store.BeginPool(ctx, row); err != nil {
		return row, err
	}
	return s.store.Pool(ctx)
}

// beginElsewhere takes other devices for a pool not made yet, if they are given now: the
// first ones may have been a mistake, and must not be formatted. Once a pool was
// formatted on the first ones, they stay.
func (s *system) beginElsewhere(ctx context.Context, row store.Pool, o poolOptions) (store.Pool, error) {
	data, metadata, err := s.cfg.poolPaths(o.data, o.metadata)
	if err != nil || o.data == "" {
		return row, err
	}
	if devmapper.StablePath(data) == row.Data && devmapper.StablePath(metadata) == row.Metadata {
		return row, nil
	}
	used, err := devmapper.HasSuperblock(row.Metadata)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return row, err
	}
	if used {
		return row, fmt.Errorf("%w: a pool on %s and %s was begun: "+
			"finish it by `consumer pool create --data %s --metadata %s`, or wipe the latter yourself",
			devmapper.ErrHasSuperblock, row.Data, row.Metadata, row.Data, row.Metadata)
	}
	other, err := s.newPool(o)
	if err != nil {
		return row, err
	}
	if err := s.store.ReplacePool(ctx, row.UUID, other); err != nil {
		return row, err
	}
	return s.store.Pool(ctx)
}

// newPool returns the row of a pool with these options. It refuses metadata with a pool
// on it.
func (s *system) newPool(o poolOptions) (store.Pool, error) {
	var err error
	if o.data, o.metadata, err = s.cfg.poolPaths(o.data, o.metadata); err != nil {
		return store.Pool{}, err
	}
	for _, path := range []string{o.data, o.metadata} {
		// not a file in a file system of memory
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && strings.HasPrefix(path, "/dev/") {
			return store.Pool{}, &usageError{fmt.Errorf("there is no device %s", path)}
		}
	}
	used, err := devmapper.HasSuperblock(o.metadata)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return store.Pool{}, err
	}
	if used {
		return store.Pool{}, fmt.Errorf(
			"%w: %s holds the metadata of a pool; give another device, or wipe this one yourself",
			devmapper.ErrHasSuperblock, o.metadata)
	}
	o.data, o.metadata = devmapper.StablePath(o.data), devmapper.StablePath(o.metadata)
	return store.Pool{
		UUID: uuid.NewString(), Name: o.name, Data: o.data, Metadata: o.metadata,
		BlockSize: int64(o.blockSize),
	}, nil
}

// makeFiles makes the missing backing files.
func makeFiles(row store.Pool, o poolOptions) error {
	_, derr := os.Stat(row.Data)
	_, merr := os.Stat(row.Metadata)
	if derr == nil && merr == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(row.Data), 0o700); err != nil {
		return err
	}
	metadata := int64(o.metadataSize)
	if metadata == 0 {
		metadata = devmapper.MetadataSize(int64(o.dataSize), row.BlockSize, o.thins)
	}
	if err := os.MkdirAll(filepath.Dir(row.Metadata), 0o700); err != nil {
		return err
	}
	return devmapper.CreateFiles(row.Data, row.Metadata, int64(o.dataSize), metadata)
}

// poolPaths returns where the pool is, or will be: at the paths given, or in the state
// directory.
func (c config) poolPaths(data, metadata string) (absData, absMetadata string, err error) {
	if (data == "") != (metadata == "") {
		return "", "", &usageError{errors.New("--data and --metadata go together")}
	}
	if data == "" {
		dir := filepath.Join(c.StateDir, "pool")
		return filepath.Join(dir, "data.img"), filepath.Join(dir, "metadata.img"), nil
	}
	absData, err = filepath.Abs(data)
	absMetadata, merr := filepath.Abs(metadata)
	return absData, absMetadata, errors.Join(err, merr)
}

// replacePool makes the journal forget a lost pool, in favour of a new one about to be
// created. A pool that can be opened is not lost, and the new pool goes where there is
// nothing: no option overrules either. The journal keeps the devices. The new pool does
// not have them, so the next start makes every image again.
func (s *system) replacePool(ctx context.Context, lost store.Pool, o poolOptions) (store.Pool, error) {
	if err := devmapper.CheckReplaceable(poolConfig(lost)); err != nil {
		return lost, fmt.Errorf("the pool is not lost, and stays: %w", err)
	}
	row, err := s.newPool(o)
	if err != nil {
		return lost, err
	}
	for _, path := range []string{row.Data, row.Metadata} {
		if err := devmapper.CheckEmpty(path); err != nil {
			return lost, err
		}
	}
	if err := s.store.ReplacePool(ctx, lost.UUID, row); err != nil {
		return lost, err
	}
	s.log.Warn().Str("lost", lost.UUID).Str("data", lost.Data).Str("metadata", lost.Metadata).Str("new", row.UUID).
		Msg("pool replaced")
	return s.store.Pool(ctx)
}
