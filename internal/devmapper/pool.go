package devmapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// Pool is an active thin pool. Several goroutines may call its methods, but not at the
// same time those on one ID.
type Pool struct {
	cfg      Config
	ctl      *dmctl.Control
	dev      string      // major:minor, for tables
	metadata string      // path of the metadata's block device
	data     blockDevice // not open
	stampAt  [2]int64    // places of the stamp on the data, in bytes
}

// Create makes a new, empty pool and activates it. It never touches a metadata device
// with a pool: it returns ErrHasSuperblock, and Open is the way. It refuses devices with
// other well-known contents as ErrForeign. Of the metadata it zeroes 4 KiB, because the
// kernel formats a device that begins with zeros. The data gets a stamp, by which Open
// recognizes them. After a crash in Create, call Create or Finish.
//
// Other errors: ErrUnavailable, ErrForeign (a name is taken), ErrBusy (a device is in
// use), and errno.
func Create(cfg Config) (*Pool, error) {
	return withDevices(cfg, func(p *Pool, metadata, data blockDevice) error {
		if err := p.format(metadata, data); err != nil {
			return err
		}
		if err := p.start(metadata, data); err != nil {
			return err
		}
		return p.createStamp(metadata)
	})
}

// Finish is Open for a pool whose creation may have been interrupted: if the pool has no
// devices yet, it stamps the data.
func Finish(ctx context.Context, cfg Config) (*Pool, error) { return open(ctx, cfg, true) }

// Open returns the pool, active. An active pool is taken as it is; otherwise, as after a
// reboot, the pool is attached, checked and activated. Open finishes devices that a crash
// left suspended or half-created, and releases a metadata snapshot that nobody uses.
//
// The check, by thin_check, reads all of the metadata, which can take minutes for
// gigabytes; it is killed when ctx ends. ErrForeign is returned when the active pool
// differs from this configuration: other devices, another block size, no zeroing, or
// writers that hang when it is full.
//
// Before it writes anything, Open makes sure that metadata and data belong to this pool,
// to each other, and to no generation before cfg.Generation. Otherwise ErrForeign says
// what is wrong, and where the right devices are if they have other names now.
//
// Other errors: ErrUnavailable, ErrNoSuperblock, ErrDamaged, ErrBusy, fs.ErrNotExist for
// the files, and errno. A pool that is read-only or needs a check is opened; Status
// reports it.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	p, err := open(ctx, cfg, false)
	if errors.Is(err, ErrForeign) || errors.Is(err, ErrNoSuperblock) || errors.Is(err, fs.ErrNotExist) {
		if hint := locateHint(cfg); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
	}
	return p, err
}

func open(ctx context.Context, cfg Config, unfinished bool) (*Pool, error) {
	return withDevices(cfg, func(p *Pool, metadata, data blockDevice) error {
		sb, unfinished, err := p.checkBeforeOpen(metadata, data, unfinished)
		if err != nil {
			return err
		}
		d, err := p.ctl.Find(cfg.poolUUID())
		switch {
		case err == nil && d.Live():
			err = p.adopt(d, metadata, data)
		case err == nil || errors.Is(err, dmctl.ErrNotFound):
			err = p.checkAndStart(ctx, sb, metadata, data)
		}
		if err == nil && unfinished {
			err = p.createStamp(metadata)
		}
		if err != nil {
			return err
		}
		return p.releaseStale()
	})
}

// withDevices calls open with the pool's lock held and its devices attached. The active
// pool keeps them; if open fails, unused loop devices clear themselves.
func withDevices(cfg Config, open func(p *Pool, metadata, data blockDevice) error) (_ *Pool, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	unlock, err := lockPool(cfg)
	if err != nil {
		return nil, fmt.Errorf("open pool %s: %w", cfg.Name, err)
	}
	defer unlock()
	ctl, err := openControl()
	if err != nil {
		return nil, err
	}
	ctl.Observe = cfg.Observe
	p := &Pool{cfg: cfg, ctl: ctl}
	metadata, data, err := attachPair(cfg)
	if err == nil {
		defer metadata.close()
		defer data.close()
		p.metadata = metadata.path
		p.data = data
		p.data.f = nil
		err = open(p, metadata, data)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pool %s: %w", cfg.Name, err), ctl.Close())
	}
	return p, nil
}

// lockPool excludes other processes of this program from the pool's set-up and from its
// only metadata snapshot. The lock is on the metadata's file or device and ends with the
// process. ErrBusy is returned after lockTimeout.
func lockPool(cfg Config) (unlock func(), err error) {
	node, err := waitForPath(cfg.Metadata)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = retryWhile(lockTimeout, isErrno(unix.EWOULDBLOCK), func() error {
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: lock %s: %w", ErrBusy, cfg.Metadata, err)
	}
	return func() { f.Close() }, nil
}

// start activates the pool, also one that a crash left half-created.
func (p *Pool) start(metadata, data blockDevice) error {
	d, err := p.halfCreated()
	if err != nil {
		return err
	}
	uuid := d.UUID
	if err := p.ctl.Load(uuid, newPoolTable(metadata, data, p.cfg.BlockSize), false); err != nil {
		err = fmt.Errorf("load pool table: %w", withHolders(err, metadata.dev, data.dev))
		return errors.Join(err, p.ctl.Remove(uuid))
	}
	if err := p.ctl.Resume(uuid); err != nil {
		return errors.Join(fmt.Errorf("activate pool (a data device smaller than the pool remembers is EINVAL): %w",
			err), p.ctl.Remove(uuid))
	}
	p.dev = d.MajorMinor()
	return d.MakeNode()
}

// checkAndStart puts the metadata of an inactive pool in order, checks it, and activates
// the pool. Metadata without an owner is marked: a crash in format leaves such, and so
// does thin_repair.
func (p *Pool) checkAndStart(ctx context.Context, sb superblock, metadata, data blockDevice) error {
	// A half-created pool may have the metadata open.
	if err := p.ctl.Remove(p.cfg.poolUUID()); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove half-created pool: %w", err)
	}
	if sb.owner != p.cfg.owner() {
		if err := setOwner(metadata, p.cfg.owner()); err != nil {
			return err
		}
	}
	err := checkMetadata(ctx, sb, metadata)
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: run `consumer pool repair`", err)
	}
	if err != nil {
		return err
	}
	_ = metadata.reserve() // a pool on a full disk still serves its users
	return p.start(metadata, data)
}

// halfCreated returns the pool's dm device without a live table: left by a crash, or new.
func (p *Pool) halfCreated() (dmctl.Device, error) {
	d, err := p.ctl.Find(p.cfg.poolUUID())
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		return p.createDevice(p.cfg.poolName(), p.cfg.poolUUID())
	case err == nil && d.Live():
		return d, fmt.Errorf("%w: pool %s is active", ErrBusy, d.Name)
	}
	return d, err
}

// createDevice makes an empty dm device. ErrForeign is returned when a device of another
// UUID has the name.
func (p *Pool) createDevice(name, uuid string) (dmctl.Device, error) {
	d, err := p.ctl.Create(name, uuid)
	if errors.Is(err, unix.EBUSY) {
		return d, fmt.Errorf("%w: there is a dm device %s of another UUID: %w", ErrForeign, name, err)
	}
	if err != nil {
		return d, fmt.Errorf("create dm device %s: %w", name, err)
	}
	return d, nil
}

// adopt takes over an active pool, if its table is as start would make it.
func (p *Pool) adopt(d dmctl.Device, metadata, data blockDevice) error {
	if d.Suspended() {
		if err := p.ctl.Resume(d.UUID); err != nil {
			return fmt.Errorf("resume pool: %w", err)
		}
	}
	_, t, err := p.ctl.LiveTable(d.UUID)
	if err != nil {
		return fmt.Errorf("table of pool: %w", err)
	}
	have, err := parsePoolTable(t)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrForeign, d.Name, err)
	}
	if err := have.checkSame(metadata, data, p.cfg.BlockSize); err != nil {
		return fmt.Errorf("%w: active pool %s %w", ErrForeign, d.Name, err)
	}
	p.dev = d.MajorMinor()
	return d.MakeNode()
}

// Close closes the handles. The pool and its devices stay active: images are in use while
// no daemon runs. It may be called twice.
func (p *Pool) Close() error {
	if err := p.ctl.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Status asks the kernel for the pool's state, without causing a commit. It is cheap and
// does not wait.
func (p *Pool) Status() (Status, error) {
	_, t, err := p.ctl.Status(p.cfg.poolUUID())
	if err != nil {
		return Status{}, fmt.Errorf("status of pool %s: %w", p.cfg.Name, err)
	}
	return parseStatus(t.Params, p.cfg.BlockSize)
}
