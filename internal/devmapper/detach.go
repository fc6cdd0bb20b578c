package devmapper

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// refuseHeld is ErrBusy with the holders of all devices of the pool that somebody has
// open, for longer than those who only look.
func refuseHeld(ctl control, cfg Config, list []device) error {
	var held []device
	err := patiently(busyPatience, isErrno(unix.EBUSY), func() (err error) {
		held, err = heldNow(ctl, cfg, list)
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
		errs = append(errs, fmt.Errorf("%s: %w", d.name, busy(unix.EBUSY, d.dev)))
	}
	return errors.Join(errs...)
}

// heldNow returns the devices that somebody has open. The pool itself is open by our thin
// devices; it is held if another device lies on it.
func heldNow(ctl control, cfg Config, list []device) (held []device, err error) {
	for _, d := range list {
		now, err := ctl.find(d.uuid)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, fmt.Errorf("status of %s: %w", d.name, err)
		case d.uuid == cfg.poolUUID():
			if strangerOn(now, list) {
				held = append(held, now)
			}
		case now.open > 0:
			held = append(held, now)
		}
	}
	return held, nil
}

// strangerOn reports whether a device that is not in the list lies on d.
func strangerOn(d device, list []device) bool {
	return slices.ContainsFunc(glob("/sys/dev/block/"+d.majmin()+"/holders/*"), func(holder string) bool {
		name := strings.TrimPrefix(dmName(holder), mapperDir)
		return !slices.ContainsFunc(list, func(own device) bool { return own.name == name })
	})
}

// removeOrRestore removes the thin devices, then the pool. If one cannot be removed,
// opened by somebody since it was looked at, those before it are activated again as they
// were.
func removeOrRestore(ctl control, cfg Config, list []device) error {
	isPool := func(d device) bool { return d.uuid == cfg.poolUUID() }
	pool := slices.IndexFunc(list, isPool)
	order := slices.DeleteFunc(slices.Clone(list), isPool)
	if pool >= 0 {
		order = append(order, list[pool])
	}
	var undo []func() error
	for _, d := range order {
		_, t, err := ctl.liveTable(d.uuid)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENXIO) {
			return errors.Join(fmt.Errorf("table of %s: %w", d.name, err), undoAll(undo))
		}
		if err := removeDevice(ctl, d); err != nil {
			return errors.Join(err, undoAll(undo))
		}
		if t.target != "" { // else it was half-created, or gone
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

// restore activates a device that was removed, with the table that it had.
func restore(ctl control, d device, t table) error {
	now, err := ctl.create(d.name, d.uuid)
	if err == nil {
		err = ctl.load(now.uuid, t, d.readOnly())
	}
	if err == nil {
		err = ctl.resume(now.uuid)
	}
	if err != nil {
		return fmt.Errorf("activate %s again: %w", d.name, err)
	}
	return makeNode(now)
}
