package devmapper

import (
	"errors"
	"fmt"
	"slices"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/devmapper/tool"
)

// Inspect returns the state of a pool, and whether it zeroes new blocks, if it is active.
// Unlike Open it attaches nothing. It returns ErrNotFound if the pool is not active, and
// ErrUnavailable if the kernel cannot be asked.
func Inspect(cfg Config) (s Status, zeroes bool, err error) {
	ctl, err := openControl()
	if err != nil {
		return s, false, err
	}
	p := &Pool{cfg: cfg, ctl: ctl}
	defer p.Close()
	if _, err := ctl.Find(cfg.poolUUID()); errors.Is(err, dmctl.ErrNotFound) {
		return s, false, fmt.Errorf("pool %s is not active: %w", cfg.Name, ErrNotFound)
	}
	_, live, err := ctl.LiveTable(cfg.poolUUID())
	if err != nil {
		return s, false, fmt.Errorf("table of pool %s: %w", cfg.Name, err)
	}
	table, err := parsePoolTable(live)
	if err != nil {
		return s, false, fmt.Errorf("table of pool %s: %w", cfg.Name, err)
	}
	s, err = p.Status()
	return s, !slices.Contains(table.features, "skip_block_zeroing"), err
}

// Programs returns the programs that this package runs: to format, to check a pool's
// metadata, and to repair them.
func Programs() []tool.Program { return []tool.Program{ext4.Program(), thinCheck, thinRepair} }
