package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// ActiveDevice is a thin device of the pool with a dm device in the kernel.
type ActiveDevice struct {
	ID   ID     `json:"id"`
	Kind Kind   `json:"kind"` // empty if the device was renamed
	Name string `json:"name"`
	Path string `json:"path"`
	// A crash left it without a live table; Activate finishes it, Deactivate removes it.
	HalfCreated bool `json:"half_created"`
	Suspended   bool `json:"suspended"` // readers hang until ResumeSuspended
	Open        int  `json:"open"`      // number of openers, mounts included
}

// Active lists the pool's active thin devices by their dm UUID, in no order. It asks for
// every dm device of the machine.
func (p *Pool) Active() ([]ActiveDevice, error) {
	list, err := p.ctl.List(p.cfg.uuidPrefix())
	return p.cfg.activeThins(list), err
}

// activeThins returns the thin devices among the pool's dm devices.
func (c Config) activeThins(list []dmctl.Device) (active []ActiveDevice) {
	for _, d := range list {
		if id, thin := c.thinID(d.UUID); thin && id != stampID {
			active = append(active, c.activeDevice(id, d))
		}
	}
	return active
}

// FindActive returns an active thin device of the pool. It asks for that device alone, so
// its cost does not grow with their number. ErrNotFound is returned when the device is
// not active.
func (p *Pool) FindActive(id ID) (ActiveDevice, error) {
	d, err := p.ctl.Find(p.cfg.thinUUID(id))
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		return ActiveDevice{}, fmt.Errorf("%w: %d is not active", ErrNotFound, id)
	case err != nil:
		return ActiveDevice{}, fmt.Errorf("thin device %d: %w", id, err)
	}
	return p.cfg.activeDevice(id, d), nil
}

func (c Config) activeDevice(id ID, d dmctl.Device) ActiveDevice {
	return ActiveDevice{
		ID: id, Kind: c.kindOf(d.Name, id), Name: d.Name, Path: d.Path(),
		HalfCreated: !d.Live(), Suspended: d.Live() && d.Suspended(), Open: d.Open,
	}
}

// ResumeSuspended resumes the pool's devices, the pool first. Call it first after a
// start: a crash may have left one suspended, and a process reading it cannot even be
// killed. It returns the active thin devices as they were before, for whoever would list
// them next: with many of them, that takes longest.
func (p *Pool) ResumeSuspended() ([]ActiveDevice, error) {
	list, err := p.ctl.List(p.cfg.uuidPrefix())
	if err != nil {
		return nil, err
	}
	return p.cfg.activeThins(list), resumeAll(p.ctl, p.cfg, list)
}

// resumeAll resumes those of the pool's devices that are suspended.
func resumeAll(ctl *dmctl.Control, cfg Config, list []dmctl.Device) error {
	var errs []error
	for _, pool := range []bool{true, false} {
		for _, d := range list {
			if d.Live() && d.Suspended() && (d.UUID == cfg.poolUUID()) == pool {
				if err := ctl.Resume(d.UUID); err != nil && !errors.Is(err, unix.ENXIO) {
					errs = append(errs, fmt.Errorf("resume %s: %w", d.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Thins lists the pool's thin devices, active or not, in the order of their ids. It reads
// them from a metadata snapshot, or from the metadata itself if the pool is read-only and
// so does not change. Only one process of this program lists at a time; others wait.
func (p *Pool) Thins() (_ []Thin, err error) {
	unlock, err := lockPool(p.cfg)
	if err != nil {
		return nil, fmt.Errorf("list thin devices: %w", err)
	}
	defer unlock()
	root, release, err := p.metadataRoot()
	if err != nil {
		return nil, fmt.Errorf("list thin devices: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	f, err := openDirect(p.metadata, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("list thin devices: %w", err)
	}
	defer f.Close()
	list, err := readThins(f, root)
	if err != nil {
		return nil, fmt.Errorf("list thin devices on %s: %w", p.metadata, err)
	}
	return withoutStamp(list), nil
}
