package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// Detach deactivates the pool's devices and the pool, and clears the loop devices of its
// files; the data stays. It is idempotent, and needs neither the files nor an opened
// Pool. It removes nothing while anybody has a device open: ErrBusy names the holders.
//
// Other errors: ErrUnavailable, and errno.
func Detach(cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	unlock, err := lockPool(cfg)
	switch {
	case err == nil:
		defer unlock()
	case !errors.Is(err, fs.ErrNotExist): // without files the devices can still be removed
		return fmt.Errorf("detach pool %s: %w", cfg.Name, err)
	}
	ctl, err := openControl()
	if err != nil {
		return err
	}
	defer ctl.Close()
	if err := removeAll(ctl, cfg); err != nil {
		return fmt.Errorf("detach pool %s: %w", cfg.Name, err)
	}
	return errors.Join(detachLoops(cfg.Data), detachLoops(cfg.Metadata))
}

// removeAll removes the thin devices, then the pool.
func removeAll(ctl *dmctl.Control, cfg Config) error {
	list, err := ctl.List(cfg.uuidPrefix())
	if err != nil {
		return err
	}
	if err := resumeAll(ctl, cfg, list); err != nil {
		return err
	}
	if err := checkNoneInUse(ctl, cfg, list); err != nil {
		return err
	}
	if err := removeOrRestore(ctl, cfg, list); err != nil {
		return err
	}
	names, err := nodeNames(cfg)
	if err != nil {
		return err
	}
	return ctl.RemoveStaleNodes(names...)
}

// nodeNames returns the names in /dev/mapper that belong to the pool.
func nodeNames(cfg Config) ([]string, error) {
	entries, err := os.ReadDir(dmctl.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if cfg.ownsName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// checkNoneInUse returns ErrBusy with the holders of every device of the pool that stays
// open longer than a look takes.
func checkNoneInUse(ctl *dmctl.Control, cfg Config, list []dmctl.Device) error {
	var held []dmctl.Device
	err := retryWhile(busyTimeout, isErrno(unix.EBUSY), func() (err error) {
		held, err = devicesInUse(ctl, cfg, list)
		if err == nil && len(held) > 0 {
			err = unix.EBUSY
		}
		return err
	})
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	var errs []error
	for _, d := range held {
		errs = append(errs, fmt.Errorf("%s: %w", d.Name, withHolders(unix.EBUSY, d.Number)))
	}
	return errors.Join(errs...)
}

// devicesInUse returns the devices that somebody has open. The pool itself is always open
// by its thin devices; it is in use if another device lies on it.
func devicesInUse(ctl *dmctl.Control, cfg Config, list []dmctl.Device) (held []dmctl.Device, err error) {
	for _, d := range list {
		now, err := ctl.Find(d.UUID)
		switch {
		case errors.Is(err, dmctl.ErrNotFound):
		case err != nil:
			return nil, fmt.Errorf("status of %s: %w", d.Name, err)
		case d.UUID == cfg.poolUUID():
			if hasForeignHolder(now, list) {
				held = append(held, now)
			}
		case now.Open > 0:
			held = append(held, now)
		}
	}
	return held, nil
}

// hasForeignHolder reports whether a device outside of the list lies on d.
func hasForeignHolder(d dmctl.Device, list []dmctl.Device) bool {
	return slices.ContainsFunc(glob("/sys/dev/block/"+d.MajorMinor()+"/holders/*"), func(holder string) bool {
		name := strings.TrimPrefix(dmName(holder), dmctl.Dir)
		return !slices.ContainsFunc(list, func(own dmctl.Device) bool { return own.Name == name })
	})
}

// removeOrRestore removes the thin devices, then the pool. If somebody has opened one
// meanwhile and it cannot be removed, those before it are activated again as they were.
func removeOrRestore(ctl *dmctl.Control, cfg Config, list []dmctl.Device) error {
	isPool := func(d dmctl.Device) bool { return d.UUID == cfg.poolUUID() }
	pool := slices.IndexFunc(list, isPool)
	order := slices.DeleteFunc(slices.Clone(list), isPool)
	if pool >= 0 {
		order = append(order, list[pool])
	}
	var undo []func() error
	for _, d := range order {
		_, t, err := ctl.LiveTable(d.UUID)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENXIO) {
			return errors.Join(fmt.Errorf("table of %s: %w", d.Name, err), undoAll(undo))
		}
		if err := removeDevice(ctl, d); err != nil {
			return errors.Join(err, undoAll(undo))
		}
		if t.Target != "" { // it was neither half-created nor gone
			undo = append(undo, func() error { return restore(ctl, d, t) })
		}
	}
	return nil
}

func undoAll(undo []func() error) error {
	var errs []error
	for _, u := range undo {
		errs = append(errs, u())
	}
	return errors.Join(errs...)
}

// restore activates a removed device again with its former table.
func restore(ctl *dmctl.Control, d dmctl.Device, t dmctl.Table) error {
	now, err := ctl.Create(d.Name, d.UUID)
	if err == nil {
		err = ctl.Load(now.UUID, t, d.ReadOnly())
	}
	if err == nil {
		err = ctl.Resume(now.UUID)
	}
	if err != nil {
		return fmt.Errorf("activate %s again: %w", d.Name, err)
	}
	return now.MakeNode()
}
