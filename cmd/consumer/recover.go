package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

// errLeftAlone is returned when the pool has devices outside of the new journal.
var errLeftAlone = errors.New("devices of the pool are not proven and left alone")

// rebuilding is added to the name of the database while it is not complete.
const rebuilding = ".recovering"

// recoverOptions are the flags of `recover`.
type recoverOptions struct {
	name, uuid, data, metadata string
	dry                        bool
}

func recoverCommand() *cobra.Command {
	var o recoverOptions
	cmd := withTable(&cobra.Command{
		Use:   "recover",
		Short: "Rebuild a lost database from the pool; --dry-run only looks",
		Long: `Recover makes the database again from what is recorded on the devices of the pool. It
needs a state directory without a database, or with an empty one, and no running
daemon. Devices without a proof of what they are are left alone.`,
		Example: `  consumer recover --dry-run
  consumer recover --data /dev/sdb --metadata /dev/sdc`,
		Annotations: exits(3, 4, 7),
		RunE: needs{common, noJournal}.then(func(ctx context.Context, c *call) error {
			return recoverJournal(ctx, c, o)
		}),
	})
	o.addTo(cmd.Flags())
	return cmd
}

// addTo adds the options to the flags.
func (o *recoverOptions) addTo(fs *pflag.FlagSet) {
	fs.BoolVar(&o.dry, "dry-run", false, "look, and change neither the pool nor the state directory")
	fs.StringVar(&o.uuid, "uuid", "", "the pool's UUID, where nothing else tells it")
	fs.StringVar(&o.name, "name", "images", "name of the pool, part of every device's name")
	fs.StringVar(&o.data, "data", "", "block device or file with the pool's data (default STATE_DIR/pool/data.img)")
	fs.StringVar(&o.metadata, "metadata", "",
		"block device or file with the pool's metadata (default STATE_DIR/pool/metadata.img)")
}

// recoverJournal rebuilds a lost database from the seal records of the pool's devices. If
// it is killed anywhere, it can be run again: the database gets its name when it is
// complete.
func recoverJournal(ctx context.Context, c *call, o recoverOptions) error {
	if err := c.cfg.checkPlace(o); err != nil { // before anything is made
		return err
	}
	if err := c.lockAll(ctx); err != nil {
		return err
	}
	if path := databasePath(c.cfg.StateDir); !isEmptyDatabase(ctx, path) {
		if err := checkNoDatabase(path); err != nil {
			return err
		}
	}
	row, attached, err := c.openLostPool(ctx, o)
	if err != nil {
		return err
	}
	l, err := c.openLocal(ctx, nil, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	r := l.reconciler(nil)
	found, err := c.recover(ctx, r, row, o.dry)
	if err != nil || o.dry {
		err = errors.Join(err, leaveAsFound(row, attached))
	}
	if err != nil {
		return err
	}
	files, err := r.Unclaimed(found)
	if err != nil {
		return err
	}
	return c.printFound(recovered{row, found, files, o.dry})
}

// errNoParts is returned when there is nothing to rebuild a database from.
var errNoParts = errors.New("there is no pool: is --state-dir right? Of a pool elsewhere, give --data and --metadata")

// checkPlace returns errNoParts for a state directory that does not exist, unless the
// pool is elsewhere.
func (c config) checkPlace(o recoverOptions) error {
	if _, err := os.Stat(c.StateDir); o.data == "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", c.StateDir, errNoParts)
	}
	return nil
}

// checkNoDatabase refuses a state directory with a database, or with a part of one:
// SQLite would take the part for the new database's.
func checkNoDatabase(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if _, err := os.Lstat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, errors.Join(fmt.Errorf("there is a database: if it is damaged, move %s away first",
				path+suffix), err))
		}
	}
	return errors.Join(errs...)
}

// openLostPool attaches the pool under its old UUID: no other owner can have it then. It
// reports whether the pool was inactive before.
func (s *system) openLostPool(ctx context.Context, o recoverOptions) (row store.Pool, attached bool, err error) {
	if err := devmapper.Probe(); err != nil {
		return row, false, err
	}
	if o.data, o.metadata, err = s.cfg.poolPaths(o.data, o.metadata); err != nil {
		return row, false, err
	}
	cfg, active, err := devmapper.Identify(devmapper.Config{
		Name: o.name, UUID: o.uuid, Data: o.data, Metadata: o.metadata,
	})
	if errors.Is(err, devmapper.ErrUnidentified) {
		err = fmt.Errorf("%w: give it with --uuid", err)
	}
	if err != nil {
		return row, false, err
	}
	if s.pool, err = devmapper.Open(ctx, cfg); err != nil {
		return row, false, err
	}
	s.onClose(s.pool.Close)
	return store.Pool{UUID: cfg.UUID, Name: cfg.Name, Data: cfg.Data, Metadata: cfg.Metadata, BlockSize: cfg.BlockSize},
		!active, nil
}

// leaveAsFound takes the pool off the machine again, if it was not there before.
func leaveAsFound(row store.Pool, attached bool) error {
	if !attached {
		return nil
	}
	return devmapper.Detach(poolConfig(row))
}

// recover scans the pool and, unless dry, makes the database.
func (s *system) recover(ctx context.Context, r *reconcile.Reconciler, row store.Pool, dry bool,
) ([]reconcile.Candidate, error) {
	found, err := r.ScanPool(ctx, row, !dry)
	if err != nil || dry {
		return found, err
	}
	path := databasePath(s.cfg.StateDir)
	if err := removeDatabase(path + rebuilding); err != nil { // what a kill left
		return found, err
	}
	st, err := store.Open(ctx, path+rebuilding)
	if err != nil {
		return found, err
	}
	if err := errors.Join(r.Rebuild(ctx, st, row, found), st.Close()); err != nil {
		return found, err
	}
	if isEmptyDatabase(ctx, path) {
		if err := removeDatabase(path); err != nil {
			return found, err
		}
	}
	return found, publish(path+rebuilding, path)
}

// publish gives the complete database its name, durably. A link, unlike a renaming,
// replaces nothing.
func publish(from, to string) error {
	if info, err := os.Stat(from + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%s holds what %s does not: the database was not closed", info.Name(), from)
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	if err := os.Remove(from); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	return syscall.Fsync(int(dir.Fd()))
}

// recovered is what recover prints.
type recovered struct {
	Pool     store.Pool            `json:"pool"`
	Devices  []reconcile.Candidate `json:"devices"`
	Archives []string              `json:"unclaimed_archives"` // of images not among the devices
	DryRun   bool                  `json:"dry_run"`
}

// printFound shows what every device of the pool is. It is an error if the journal does
// not have all of them now.
func (o *output) printFound(r recovered) error {
	is := map[string]int{}
	for _, f := range r.Devices {
		is[f.Is]++
	}
	var err error
	if o.asJSON {
		err = printJSON(o.out, r)
	} else {
		err = r.table(o)
		done := "the database is rebuilt. `consumer backfill` finds the images that the pool does not have"
		if r.DryRun {
			done = "nothing was written"
		}
		fmt.Fprintf(o.out, "pool %s (%s): %s, %s; %s\n", r.Pool.Name, r.Pool.UUID,
			count(is[reconcile.FoundImage], "image"), count(is[reconcile.FoundSnapshot], "snapshot"), done)
	}
	if n := is[reconcile.FoundUnproven]; err == nil && n > 0 {
		err = fmt.Errorf("%d %w", n, errLeftAlone)
	}
	return err
}

func (r recovered) table(o *output) error {
	t := o.table("DEVICE", "IS", "IMAGE", "KEY", "ARCHIVE", "PATH", "WHY")
	for _, f := range r.Devices {
		image, archive := "-", "-"
		if f.Image != 0 {
			image = fmt.Sprint(f.Image)
		}
		if f.Is == reconcile.FoundImage {
			archive = yesNo(f.Archive)
		}
		t.row(fmt.Sprint(f.Device), f.Is, image, dash(quoted(f.Key)), archive, dash(f.Path), dash(oneLine(f.Why)))
	}
	err := t.flush()
	for _, path := range r.Archives {
		fmt.Fprintf(o.out, "%s belongs to none of these images; it is left alone\n", path)
	}
	return err
}
