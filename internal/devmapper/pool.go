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

// Pool is an active thin pool of ours. Its methods may be called by several goroutines,
// those on one ID not at the same time.
type Pool struct {
	cfg      Config
	ctl      *dmctl.Control
	dev      string      // major:minor, as tables want it
	metadata string      // path of the metadata's block device
	data     blockDevice // not open
	stampAt  [2]int64    // where its stamp is, bytes
}

// Create makes a new, empty pool and activates it. A metadata device that holds a pool is
// never touched: ErrHasSuperblock, and Open is the way. Devices with other well-known
// contents are refused as ErrForeign. Of the metadata, 4 KiB are zeroed; the kernel
// formats what begins with zeros. The data get a stamp, by which Open knows them. After a
// crash anywhere in between, Create or Finish succeeds.
//
// Other errors: ErrUnavailable, ErrForeign (our names are taken), ErrBusy (a device is in
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

// Finish is Open for a pool whose creation was cut off: where nothing was made in the
// pool yet, the data get their stamp.
func Finish(ctx context.Context, cfg Config) (*Pool, error) { return open(ctx, cfg, true) }

// Open returns the pool, active: as it is when it is active, else attached, checked and
// activated, as after a reboot. What a crash left suspended or half-created is finished,
// a metadata snapshot that nobody uses is released. The check, by thin_check, reads all
// of the metadata, which can take minutes for gigabytes; it is killed when ctx ends. A
// pool that is active but not as this configuration says (other devices or block size,
// zeroing off, full pool that hangs writers) is refused as ErrForeign.
//
// Before anything is written, metadata and data prove that they are those of this pool,
// and of one time, not before the Generation that is given: else ErrForeign says what is
// wrong, and where the right devices are if they have other names now.
//
// Other errors: ErrUnavailable, ErrNoSuperblock, ErrDamaged, ErrBusy, fs.ErrNotExist for
// the files, and errno. A pool that is read-only or needs a check is opened; Status
// tells.
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

// withDevices runs open with the pool's lock and its attached devices. They stay with the
// pool; if open fails, loop devices that nothing uses clear themselves.
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

// lockPool excludes other processes of ours from the pool's set-up and from its one
// metadata snapshot. The lock is on what the metadata lies on and goes with the process.
// ErrBusy after lockPatience.
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

// start activates the pool, or finishes what a crash left half-created.
func (p *Pool) start(metadata, data blockDevice) error {
	d, err := p.halfCreated()
	if err != nil {
		return err
	}
	uuid := d.UUID
	if err := p.ctl.Load(uuid, newPoolTable(metadata, data, p.cfg.BlockSize), false); err != nil {
		return errors.Join(fmt.Errorf("load pool table: %w", withHolders(err, metadata.dev, data.dev)), p.ctl.Remove(uuid))
	}
	if err := p.ctl.Resume(uuid); err != nil {
		return errors.Join(fmt.Errorf("activate pool (a data device smaller than the pool remembers is EINVAL): %w",
			err), p.ctl.Remove(uuid))
	}
	p.dev = d.MajorMinor()
	return d.MakeNode()
}

// checkAndStart activates a pool that is not active, after it has been put in order and checked.
// One without a mark, as a crash within format or thin_repair leaves it, is marked.
func (p *Pool) checkAndStart(ctx context.Context, sb superblock, metadata, data blockDevice) error {
	// half-created, it may have the metadata open
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
	_ = metadata.reserve() // a pool on a full disk serves its users nevertheless
	return p.start(metadata, data)
}

// halfCreated returns the pool's dm device without a live table: the one that a crash
// left, or a new one.
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

// createDevice makes an empty dm device. A name that has another UUID is ErrForeign.
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

// adopt takes an active pool as it is, if it is as we would make it.
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

// Close drops the handles. The pool and its devices stay active: images are in use while
// no daemon runs. It may be called twice.
func (p *Pool) Close() error {
	if err := p.ctl.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Status asks the kernel, without causing a commit. It is cheap, and waits for nothing.
func (p *Pool) Status() (Status, error) {
	_, t, err := p.ctl.Status(p.cfg.poolUUID())
	if err != nil {
		return Status{}, fmt.Errorf("status of pool %s: %w", p.cfg.Name, err)
	}
	return parseStatus(t.Params, p.cfg.BlockSize)
}
