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

	given func(flag string) bool // whether the command line has it
}

func poolCreateCommand() *cobra.Command {
	o := poolOptions{dataSize: 100e9, blockSize: 64 << 10}
	cmd := withTable(&cobra.Command{
		Use:   "create",
		Short: "Make the thin pool",
		Long: `Create makes the thin pool, and the database if there is none: on files in STATE_DIR
behind loop devices, or on the block devices given. It may be run again: it
finishes what was cut off, and leaves a finished pool alone; other options than
those of that pool are refused. It never touches a metadata device with a pool on
it. If it fails before there is a pool, it leaves nothing behind.`,
		Example: `  consumer pool create --data-size 200GiB
  consumer pool create --data /dev/sdb --metadata /dev/sdc`,
		Annotations: exits(3, 4),
		RunE: needs{common, noJournal}.then(func(ctx context.Context, c *call) error {
			return makePool(ctx, c, o)
		}),
	})
	o.given = func(flag string) bool { return cmd.Flags().Changed(flag) }
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

// poolMaker makes a pool with these options.
type poolMaker struct {
	*system
	poolOptions
}

// makePool makes the pool, on files behind loop devices or on given block devices. It is
// safe to run again: it finishes what a crash left half-made, and leaves a finished pool
// alone.
func makePool(ctx context.Context, c *call, o poolOptions) error {
	m := poolMaker{c.system, o}
	first, err := m.isFirst()
	if err != nil {
		return err
	}
	if err := c.lockAll(ctx); err != nil {
		return err
	}
	if err := c.openStore(ctx); err != nil {
		return err
	}
	if err := devmapper.Probe(); err != nil {
		return err
	}
	if err := m.createPool(ctx); err != nil {
		if first {
			err = errors.Join(err, m.forgetPool(ctx))
		}
		return err
	}
	if err := c.warnOfDisk(ctx); err != nil {
		return err
	}
	return c.printPool(ctx)
}

// createPool records the intent, makes the files and the pool, and records its existence.
// From then on its metadata is never written to as if it were new.
func (m poolMaker) createPool(ctx context.Context) error {
	row, err := m.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		if row, err = m.beginPool(ctx); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if row.State == "ready" && m.replace {
		row, err = m.replacePool(ctx, row)
	}
	if err != nil {
		return err
	}
	if row.State == "ready" {
		return m.openSame(ctx, row)
	}
	if row, err = m.beginElsewhere(ctx, row); err != nil {
		return err
	}
	made, err := makeFiles(row, m.poolOptions)
	if err != nil {
		return err
	}
	pool, err := devmapper.Create(poolConfig(row))
	if errors.Is(err, devmapper.ErrHasSuperblock) { // ours: the intent was recorded when there was none
		pool, err = devmapper.Finish(ctx, poolConfig(row))
	}
	if err != nil {
		return errors.Join(err, removeUnused(row, made))
	}
	m.pool = pool
	m.onClose(pool.Close)
	return m.store.FinishPool(ctx)
}

func (m poolMaker) beginPool(ctx context.Context) (store.Pool, error) {
	row, err := m.newPool()
	if err != nil {
		return row, err
	}
	if err := m.store.BeginPool(ctx, row); err != nil {
		return row, err
	}
	return m.store.Pool(ctx)
}

// beginElsewhere takes another name or other devices for a pool not made yet, if they are
// given now: the first ones may have been a mistake, and must not be formatted. Once a
// pool was formatted on the first ones, they stay.
func (m poolMaker) beginElsewhere(ctx context.Context, row store.Pool) (store.Pool, error) {
	asked, err := m.asked(row)
	if err != nil || asked == row {
		return row, err
	}
	used, err := devmapper.HasSuperblock(row.Metadata)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return row, err
	}
	if used {
		return row, fmt.Errorf("%w: a pool on %s and %s was begun: "+
			"finish it by `consumer pool create --name %s --data %s --metadata %s`",
			devmapper.ErrHasSuperblock, row.Data, row.Metadata, row.Name, row.Data, row.Metadata)
	}
	m.name, m.data, m.metadata, m.blockSize = asked.Name, asked.Data, asked.Metadata, size(asked.BlockSize)
	other, err := m.newPool()
	if err != nil {
		return row, err
	}
	if err := m.store.ReplacePool(ctx, row.UUID, other); err != nil {
		return row, err
	}
	return m.store.Pool(ctx)
}

// newPool returns the row of a pool with these options. It refuses metadata with a pool
// on it.
func (m poolMaker) newPool() (store.Pool, error) {
	var err error
	if m.data, m.metadata, err = m.cfg.poolPaths(m.data, m.metadata); err != nil {
		return store.Pool{}, err
	}
	for _, path := range []string{m.data, m.metadata} {
		// not a file in a file system of memory
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && strings.HasPrefix(path, "/dev/") {
			return store.Pool{}, &usageError{fmt.Errorf("there is no device %s", path)}
		}
	}
	used, err := devmapper.HasSuperblock(m.metadata)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return store.Pool{}, err
	}
	if used {
		return store.Pool{}, m.refuseUsed()
	}
	m.data, m.metadata = devmapper.StablePath(m.data), devmapper.StablePath(m.metadata)
	return store.Pool{
		UUID: uuid.NewString(), Name: m.name, Data: m.data, Metadata: m.metadata,
		BlockSize: int64(m.blockSize),
	}, nil
}

// refuseUsed says what to do about metadata with a pool on it.
func (m poolMaker) refuseUsed() error {
	if m.cfg.hasPool() && filepath.Dir(m.metadata) == filepath.Join(m.cfg.StateDir, "pool") {
		return fmt.Errorf("%w: %s", errDatabaseLost, m.cfg.bringBack())
	}
	return fmt.Errorf("%w: %s holds the metadata of a pool: give another device; if its database is lost, "+
		"`consumer recover --data %s --metadata %s` makes it again", devmapper.ErrHasSuperblock, m.metadata, m.data,
		m.metadata)
}

// makeFiles makes the missing backing files. It returns the paths that were missing.
func makeFiles(row store.Pool, o poolOptions) (missing []string, err error) {
	for _, path := range []string{row.Data, row.Metadata} {
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(row.Data), 0o700); err != nil {
		return missing, err
	}
	metadata := int64(o.metadataSize)
	if metadata == 0 {
		metadata = devmapper.MetadataSize(int64(o.dataSize), row.BlockSize, o.thins)
	}
	if err := os.MkdirAll(filepath.Dir(row.Metadata), 0o700); err != nil {
		return missing, err
	}
	err = devmapper.CreateFiles(row.Data, row.Metadata, int64(o.dataSize), metadata)
	if err != nil {
		err = errors.Join(err, removeUnused(row, missing))
	}
	return missing, err
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
func (m poolMaker) replacePool(ctx context.Context, lost store.Pool) (store.Pool, error) {
	if err := devmapper.CheckReplaceable(poolConfig(lost)); err != nil {
		return lost, fmt.Errorf("the pool is not lost, and stays: %w", err)
	}
	row, err := m.newPool()
	if err != nil {
		return lost, err
	}
	for _, path := range []string{row.Data, row.Metadata} {
		if err := devmapper.CheckEmpty(path); err != nil {
			return lost, err
		}
	}
	if err := m.store.ReplacePool(ctx, lost.UUID, row); err != nil {
		return lost, err
	}
	m.log.Warn().Str("lost", lost.UUID).Str("data", lost.Data).Str("metadata", lost.Metadata).Str("new", row.UUID).
		Msg("pool replaced")
	return m.store.Pool(ctx)
}
