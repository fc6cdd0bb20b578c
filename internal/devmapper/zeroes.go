package devmapper

import (
	"fmt"
	"slices"

	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/devmapper/tool"
)

// Zeroes reports whether an active pool zeroes new blocks, as Open demands.
func Zeroes(cfg Config) (bool, error) {
	ctl, err := openControl()
	if err != nil {
		return false, err
	}
	defer ctl.Close()
	_, live, err := ctl.LiveTable(cfg.poolUUID())
	if err != nil {
		return false, fmt.Errorf("table of pool %s: %w", cfg.Name, err)
	}
	table, err := parsePoolTable(live)
	return !slices.Contains(table.features, "skip_block_zeroing"), err
}

// Programs returns the programs that this package runs: to format, to check a pool's
// metadata, and to repair them.
func Programs() []tool.Program { return []tool.Program{ext4.Program(), thinCheck, thinRepair} }
