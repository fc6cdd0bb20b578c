package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/failpoint"
)

// CreateThin makes an inactive thin device in the pool. When it returns nil the device
// survives a power cut. Errors: ErrExists, ErrNoSpace, ErrReadOnly. After ErrReadOnly the
// device may exist or not.
func (p *Pool) CreateThin(id ID) error {
	return p.createBy(id, fmt.Sprintf("create_thin %d", id))
}

// CreateSnapshot makes an inactive snapshot of the thin device origin. Blocks are shared
// until one side writes. The origin must not be active (ErrBusy): it would have to be
// suspended, and the snapshot would silently lack files not yet synced.
//
// ErrNotFound is about the origin; ErrExists, ErrNoSpace and ErrReadOnly are as for
// CreateThin.
func (p *Pool) CreateSnapshot(id, origin ID) error {
	if err := checkID(origin); err != nil {
		return err
	}
	d, err := p.ctl.Find(p.cfg.thinUUID(origin))
	if err == nil {
		return fmt.Errorf("%w: origin %d of snapshot %d is active as %s", ErrBusy, origin, id, d.Name)
	}
	if !errors.Is(err, dmctl.ErrNotFound) {
		return err
	}
	return p.createBy(id, fmt.Sprintf("create_snap %d %d", id, origin))
}

// createBy creates a thin device by a message to the pool.
func (p *Pool) createBy(id ID, msg string) error {
	if err := checkID(id); err != nil {
		return err
	}
	s, err := p.Status()
	if err != nil {
		return err
	}
	if s.Mode == ModeOutOfDataSpace { // the kernel would make a device without space
		return fmt.Errorf("%s: %w: %w", msg, ErrNoSpace, unix.ENOSPC)
	}
	return p.message(msg)
}

// Delete removes a thin device from the pool and frees the blocks that no other device
// shares. It must not be active (ErrBusy). The pool gets the space back; a loop's file
// shrinks only by an earlier Discard. ErrNotFound is returned when the device is gone
// already. After nil or ErrNotFound the id may be used again.
func (p *Pool) Delete(id ID) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.message(fmt.Sprintf("delete %d", id))
}

func checkID(id ID) error {
	if id <= stampID || id > maxID {
		return fmt.Errorf("thin device id %d: 1 to %d: %w", id, maxID, unix.EINVAL)
	}
	return nil
}

// messageErrors maps the errno of pool messages to their meaning (measured, and
// process_*_mesg in dm-thin.c).
var messageErrors = []struct {
	errno unix.Errno
	is    error
}{
	{unix.EEXIST, ErrExists},
	{unix.ENODATA, ErrNotFound},
	{unix.EBUSY, ErrBusy},
	{unix.EOPNOTSUPP, ErrReadOnly},
	{unix.ENOSPC, ErrReadOnly}, // of metadata
}

// message sends a message to the pool and makes sure of its commit. The kernel returns
// success even when the commit behind the message failed (dm-thin.c drops the result),
// but then the pool has gone read-only.
func (p *Pool) message(msg string) error {
	if err := p.ctl.Message(p.cfg.poolUUID(), msg); err != nil {
		for _, m := range messageErrors {
			if errors.Is(err, m.errno) {
				return fmt.Errorf("%s: %w: %w", msg, m.is, err)
			}
		}
		return fmt.Errorf("%s: %w", msg, err)
	}
	s, err := p.Status()
	if err != nil {
		return fmt.Errorf("%s: not known whether it was committed: %w", msg, err)
	}
	if err := s.checkWritable(); err != nil {
		return fmt.Errorf("%s: not committed: %w: %w", msg, err, unix.EIO)
	}
	return nil
}

// Activate makes the thin device usable and returns its path. Its size in bytes must be a
// multiple of 512. Activate is idempotent: it leaves an active device as it is, and
// finishes one left half-created or suspended by a crash. ErrBusy is returned when the
// device is active with another kind, size or mode. After an error nothing is left
// behind.
//
// ErrNotFound is returned when the pool has no such thin device, ErrForeign when a device
// of another pool has the name.
func (p *Pool) Activate(id ID, kind Kind, bytes int64, readOnly bool) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	if bytes <= 0 || bytes%sectorSize != 0 {
		return "", fmt.Errorf("activate %d: size of %d bytes: %w", id, bytes, unix.EINVAL)
	}
	return p.activate(id, kind, bytes, readOnly)
}

func (p *Pool) activate(id ID, kind Kind, bytes int64, readOnly bool) (string, error) {
	name, uuid := p.cfg.thinName(kind, id), p.cfg.thinUUID(id)
	want := newThinTable(p.dev, id, bytes)
	d, err := p.ctl.Find(uuid)
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		d, err = p.createDevice(name, uuid)
	case err == nil && d.Live():
		return p.reuseActive(d, name, want, readOnly)
	case err == nil && d.Name != name:
		err = fmt.Errorf("%w: it is half-created as %s", ErrBusy, d.Name)
	}
	if err != nil {
		return "", fmt.Errorf("activate %d: %w", id, err)
	}
	if err := p.loadAndResume(d, want, readOnly); err != nil {
		return "", errors.Join(fmt.Errorf("activate %d: %w", id, err), removeDevice(p.ctl, d))
	}
	return d.Path(), nil
}

// loadAndResume activates a device without a live table.
func (p *Pool) loadAndResume(d dmctl.Device, want dmctl.Table, readOnly bool) error {
	err := retryWhile(reloadTimeout, p.isReloading, func() error { return p.ctl.Load(d.UUID, want, readOnly) })
	if errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("load table: %w", err)
	}
	if err := p.ctl.Resume(d.UUID); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return d.MakeNode()
}

// isReloading reports whether a table was refused because another process is replacing
// the pool's own table, which is over soon. The kernel then says EINVAL for a well-formed
// table. It does so for a failed pool too, and that is not over soon.
func (p *Pool) isReloading(err error) bool {
	if !errors.Is(err, unix.EINVAL) {
		return false
	}
	s, serr := p.Status()
	return serr == nil && s.Mode != ModeFailed
}

// reuseActive accepts an active device if it is as asked for.
func (p *Pool) reuseActive(d dmctl.Device, name string, want dmctl.Table, readOnly bool) (string, error) {
	if d.Suspended() {
		if err := p.ctl.Resume(d.UUID); err != nil {
			return "", fmt.Errorf("resume %s: %w", d.Name, err)
		}
	}
	_, have, err := p.ctl.LiveTable(d.UUID)
	if err != nil {
		return "", fmt.Errorf("table of %s: %w", d.Name, err)
	}
	if d.Name != name || have != want || d.ReadOnly() != readOnly {
		return "", fmt.Errorf("%w: %s is active otherwise: %d sectors, %s %q, read-only %t",
			ErrBusy, d.Name, have.Sectors, have.Target, have.Params, d.ReadOnly())
	}
	return d.Path(), d.MakeNode()
}

// Deactivate removes the active device; the thin device stays in the pool. It is success
// if the device is not active. ErrBusy is returned when somebody has the device open for
// longer than a few seconds; the text names the holder if one can be found.
func (p *Pool) Deactivate(id ID) error {
	d, err := p.ctl.Find(p.cfg.thinUUID(id))
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		return p.ctl.RemoveStaleNodes(p.cfg.thinName(KindImage, id), p.cfg.thinName(KindSnapshot, id),
			p.cfg.thinName(kindStamp, id))
	case err != nil:
		return fmt.Errorf("deactivate %d: %w", id, err)
	case d.Suspended() && d.Live(): // the removal would wait forever for queued I/O
		if err := p.ctl.Resume(d.UUID); err != nil {
			return fmt.Errorf("resume %s: %w", d.Name, err)
		}
	}
	return removeDevice(p.ctl, d)
}

// removeDevice waits a little for programs that only look: udev opens the devices it is
// told of. It never removes by force: that puts errors under a mounted file system, and
// fails anyway.
func removeDevice(ctl *dmctl.Control, d dmctl.Device) error {
	err := retryWhile(busyTimeout, isErrno(unix.EBUSY), func() error { return ctl.Remove(d.UUID) })
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove %s: %w", d.Name, withHolders(err, d.Number))
	}
	return d.RemoveNode()
}

// Discard gives all blocks of an active thin device back to the pool and to the device
// under it. Nothing else shrinks a loop's file. Blocks shared with other devices stay
// with those. Discard works in chunks, so others get their turn in between.
//
// ErrBusy is returned when the device is mounted or open, ErrNotFound when it is not
// active.
func (p *Pool) Discard(id ID) error {
	d, err := p.ctl.Find(p.cfg.thinUUID(id))
	if errors.Is(err, dmctl.ErrNotFound) {
		err = fmt.Errorf("%w: it is not active: %w", ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("discard %d: %w", id, err)
	}
	path, err := d.WorkPath()
	if err != nil {
		return fmt.Errorf("discard %d: %w", id, err)
	}
	f, err := openExclusive(path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("discard %d: %w", id, err)
	}
	defer f.Close()
	b, err := describe(f)
	if err != nil {
		return fmt.Errorf("discard %d: %w", id, err)
	}
	if b.dev != d.Number {
		return fmt.Errorf("discard %d: %w: %s is another device's node", id, ErrForeign, b.path)
	}
	chunk := max(256<<20, p.cfg.BlockSize)
	for at := int64(0); at < b.size; at += chunk {
		if err := discardRange(f, at, min(chunk, b.size-at)); err != nil {
			return fmt.Errorf("discard %d at %d: %w", id, at, err)
		}
		failpoint.Here("after", "discard")
	}
	return nil
}
