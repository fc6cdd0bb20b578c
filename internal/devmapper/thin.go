package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/failpoint"
)

// CreateThin makes a thin device in the pool, not active. When it returns nil the device
// survives a power cut. ErrExists, ErrNoSpace, ErrReadOnly; after ErrReadOnly the device
// may exist or not.
func (p *Pool) CreateThin(id ID) error {
	return p.createBy(id, fmt.Sprintf("create_thin %d", id))
}

// CreateSnapshot makes a snapshot of the thin device origin, not active. The origin must
// not be active (ErrBusy): the kernel would want it suspended, and a snapshot of unsynced
// files lacks them without a word. Blocks are shared until one side writes.
//
// ErrNotFound is about the origin; ErrExists, ErrNoSpace, ErrReadOnly as for CreateThin.
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

func (p *Pool) createBy(id ID, msg string) error {
	if err := checkID(id); err != nil {
		return err
	}
	s, err := p.Status()
	if err != nil {
		return err
	}
	if s.Mode == ModeOutOfDataSpace { // the kernel would make it
		return fmt.Errorf("%s: %w: %w", msg, ErrNoSpace, unix.ENOSPC)
	}
	return p.message(msg)
}

// Delete removes a thin device from the pool and frees the blocks that no other device
// shares. It must not be active (ErrBusy); ErrNotFound says that it is gone already.
// Space comes back to the pool, to a loop's file only by Discard before. When it returns
// nil, or ErrNotFound, the id may be used again.
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

// messageErrors gives the errno of pool messages their meaning (measured, and
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

// message sends a message to the pool and makes sure that it was committed: the kernel
// returns success even when the commit behind the message failed, but then the pool has
// gone read-only.
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

// Activate makes the thin device usable under the path that it returns, with a size in
// bytes that is a multiple of 512. It is idempotent: an active device is left as it is,
// one that a crash left half-created or suspended is finished. One that is active
// otherwise than asked for (kind, size, read-only) is ErrBusy. On any error nothing is
// left behind.
//
// ErrNotFound says that the pool has no such thin device, ErrForeign that a device of
// another pool has the name.
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

// loadAndResume gives a device without live table its table.
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

// isReloading reports whether a table was refused because the pool is just being given a new
// one of its own, which passes. The kernel says EINVAL then for a table that is
// well-formed, and when the pool has failed, which does not pass.
func (p *Pool) isReloading(err error) bool {
	if !errors.Is(err, unix.EINVAL) {
		return false
	}
	s, serr := p.Status()
	return serr == nil && s.Mode != ModeFailed
}

// reuseActive accepts an active device that is as it should be.
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

// Deactivate removes the active device; the thin device stays in the pool. A device that
// is not active is success. ErrBusy, with the holder's name where it can be found, if
// somebody has it open for longer than a few seconds.
func (p *Pool) Deactivate(id ID) error {
	d, err := p.ctl.Find(p.cfg.thinUUID(id))
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		return p.ctl.RemoveStaleNodes(p.cfg.thinName(KindImage, id), p.cfg.thinName(KindSnapshot, id),
			p.cfg.thinName(kindStamp, id))
	case err != nil:
		return fmt.Errorf("deactivate %d: %w", id, err)
	case d.Suspended() && d.Live(): // the removal would wait for ever for what is queued
		if err := p.ctl.Resume(d.UUID); err != nil {
			return fmt.Errorf("resume %s: %w", d.Name, err)
		}
	}
	return removeDevice(p.ctl, d)
}

// removeDevice waits a little for those who only look: udev opens devices that it is told
// of. Never by force: that puts errors under a mounted file system and fails all the
// same.
func removeDevice(ctl *dmctl.Control, d dmctl.Device) error {
	err := retryWhile(busyTimeout, isErrno(unix.EBUSY), func() error { return ctl.Remove(d.UUID) })
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove %s: %w", d.Name, withHolders(err, d.Number))
	}
	return d.RemoveNode()
}

// Discard gives all blocks of an active thin device back: to the pool, and to what lies
// under it. Only this shrinks a loop's file. A device that is mounted or open otherwise
// is ErrBusy; one that is not active, ErrNotFound. Blocks shared with other devices stay
// theirs. Between the chunks others get their turn.
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
