package devmapper

import (
	"errors"
	"fmt"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// Look asks the kernel for the state of a pool, and attaches nothing. It returns
// ErrNotFound if the pool is not active, and ErrUnavailable if the kernel cannot be
// asked.
func Look(cfg Config) (Status, error) {
	ctl, err := openControl()
	if err != nil {
		return Status{}, err
	}
	p := &Pool{cfg: cfg, ctl: ctl}
	defer p.ctl.Close()
	if _, err := ctl.Find(cfg.poolUUID()); errors.Is(err, dmctl.ErrNotFound) {
		return Status{}, fmt.Errorf("pool %s is not active: %w", cfg.Name, ErrNotFound)
	}
	return p.Status()
}
