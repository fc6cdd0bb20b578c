package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/google/uuid"

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

// cmdPoolCreate makes the pool: on files behind loop devices, or on block devices that
// are given. It is safe to run again: what a crash left half-made is finished, what is
// finished is left alone.
func cmdPoolCreate(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool create", "", out)
	o := poolOptions{dataSize: 100e9, blockSize: 64 << 10}
	asJSON := jsonFlag(fs)
	fs.StringVar(&o.name, "name", "images", "name of the pool, part of every device's name")
	fs.StringVar(&o.data, "data", "",
		"block device or file for data; a disk is remembered by its name in /dev/disk/by-id (default STATE_DIR/pool/data.img)")
	fs.StringVar(&o.metadata, "metadata", "", "block device or file for metadata (default STATE_DIR/pool/metadata.img)")
	fs.Var(&o.dataSize, "data-size", "size of the data file to make; it is sparse")
	fs.Var(&o.metadataSize, "metadata-size",
		"size of the metadata file to make, set aside in full (default by formula)")
	fs.Var(&o.blockSize, "block-size", "pool block size, fixed for its life")
	fs.IntVar(&o.thins, "thins", 10000, "thin devices to size the metadata for")
	fs.BoolVar(&o.replace, "replace", false,
		"in the place of a pool that is lost; the next start makes every image again")
	s, err := openCommand(ctx, fs, args, store.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.lockAll(ctx); err != nil {
		return err
	}
	if err := devmapper.Probe(); err != nil {
		return err
	}
	if err := s.createPool(ctx, o); err != nil {
		return err
	}
	return s.printPool(ctx, out, *asJSON)
}

// createPool records the intent, makes the files, makes the pool, and records that it
// exists. From then on its metadata is never written to as if it were new.
func (s *system) createPool(ctx context.Context, o poolOptions) error {
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		if row, err = s.intendPool(ctx, o); err != nil {
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
	if row, err = s.intendElsewhere(ctx, row, o); err != nil {
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
	return s.store.PoolCreated(ctx)
}

func (s *system) intendPool(ctx context.Context, o poolOptions) (store.Pool, error) {
	row, err := s.newPool(o)
	if err != nil {
		return row, err
	}
	if err := s.store.BeginPool(ctx, row); err != nil {
		return row, err
	}
	return s.store.Pool(ctx)
}

// intendElsewhere takes other devices for a pool that was intended and not made, if they
// are given now: the first ones may have been a mistake, and are not to be formatted.
// Once a pool was formatted there it is that one.
func (s *system) intendElsewhere(ctx context.Context, row store.Pool, o poolOptions) (store.Pool, error) {
	data, metadata, err := s.poolPaths(o)
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
		return row, fmt.Errorf("%w: a pool on %s and %s was begun: finish it by `consumer pool create --data %s --metadata %s`, or wipe the latter yourself",
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

// newPool is the row of a pool that these options describe. Metadata that hold a pool are
// refused.
func (s *system) newPool(o poolOptions) (store.Pool, error) {
	var err error
	if o.data, o.metadata, err = s.poolPaths(o); err != nil {
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

// makeFiles makes the backing files that do not exist yet.
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

func cmdPoolStatus(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool status", "", out)
	asJSON := jsonFlag(fs)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.openPool(ctx); err != nil {
		return errors.Join(err, s.printLostPool(ctx, out, err, *asJSON))
	}
	return s.printPool(ctx, out, *asJSON)
}

// printLostPool shows what the journal knows of a pool that cannot be opened, if it knows
// one.
func (s *system) printLostPool(ctx context.Context, out io.Writer, why error, asJSON bool) error {
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, map[string]any{"pool": row, "status": nil, "error": why.Error()})
	}
	t := newTable(out, "POOL", "MODE", "UUID", "BLOCK", "DATA ON", "METADATA ON")
	t.row(row.Name, "not open", row.UUID, units.BytesSize(float64(row.BlockSize)), row.Data, row.Metadata)
	return t.flush()
}

// cmdPoolDetach is the way to take the pool off this machine, or out of the way of
// maintenance.
func cmdPoolDetach(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool detach", "", out)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	row, err := s.detach(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "pool %s detached; its data stays in %s\n", row.Name, row.Data)
	return nil
}

// detach takes the pool off the machine, while no daemon runs.
func (s *system) detach(ctx context.Context) (store.Pool, error) {
	if err := s.lockAll(ctx); err != nil {
		return store.Pool{}, err
	}
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return row, errNoPool
	}
	if err != nil {
		return row, err
	}
	return row, devmapper.Detach(poolConfig(row))
}

// printPool shows the pool's row and what the kernel says of it.
func (s *system) printPool(ctx context.Context, out io.Writer, asJSON bool) error {
	row, err := s.store.Pool(ctx)
	if err != nil {
		return err
	}
	st, err := s.pool.Status()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, map[string]any{"pool": row, "status": st})
	}
	percent := func(used, total int64) string {
		return fmt.Sprintf("%s of %s (%.1f %%)",
			units.BytesSize(float64(used)), units.BytesSize(float64(total)), 100*float64(used)/float64(total))
	}
	t := newTable(out, "POOL", "MODE", "DATA USED", "METADATA USED", "BLOCK", "DATA ON")
	t.row(row.Name, string(st.Mode), percent(st.UsedData, st.TotalData), percent(st.UsedMetadata, st.TotalMetadata),
		units.BytesSize(float64(row.BlockSize)), row.Data)
	return t.flush()
}
