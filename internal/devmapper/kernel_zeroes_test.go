package devmapper

import (
	"strings"
	"testing"
)

// A pool that does not zero is told from one that does; one that is not active stays so.
func TestZeroes(t *testing.T) {
	p, cfg := newPool(t)
	if zeroes, err := Zeroes(cfg); err != nil || !zeroes {
		t.Errorf("zeroes %t, %v", zeroes, err)
	}
	_, table, err := p.ctl.LiveTable(cfg.poolUUID())
	check(t, err)
	table.Params = strings.Replace(table.Params, "1 error_if_no_space", "2 skip_block_zeroing error_if_no_space", 1)
	check(t, p.ctl.Load(cfg.poolUUID(), table, false))
	check(t, p.ctl.Resume(cfg.poolUUID()))
	if zeroes, err := Zeroes(cfg); err != nil || zeroes {
		t.Errorf("a pool that does not zero: zeroes %t, %v", zeroes, err)
	}
	check(t, Detach(cfg))
	if _, err := Zeroes(cfg); err == nil {
		t.Error("a detached pool zeroes")
	}
	if leaks := kernelLeaks(); len(leaks) > 0 {
		t.Errorf("attached: %q", leaks)
	}
}
