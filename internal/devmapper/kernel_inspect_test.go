package devmapper

import (
	"errors"
	"strings"
	"testing"
)

// Inspect sees an active pool as it is, and attaches none.
func TestInspect(t *testing.T) {
	p, cfg := newPool(t)
	want, err := p.Status()
	check(t, err)
	if s, zeroes, err := Inspect(cfg); err != nil || !zeroes || s != want {
		t.Errorf("%+v, zeroes %t, %v; want %+v", s, zeroes, err, want)
	}
	_, table, err := p.ctl.LiveTable(cfg.poolUUID())
	check(t, err)
	table.Params = strings.Replace(table.Params, "1 error_if_no_space", "2 skip_block_zeroing error_if_no_space", 1)
	check(t, p.ctl.Load(cfg.poolUUID(), table, false))
	check(t, p.ctl.Resume(cfg.poolUUID()))
	if _, zeroes, err := Inspect(cfg); err != nil || zeroes {
		t.Errorf("a pool that does not zero: zeroes %t, %v", zeroes, err)
	}
	check(t, Detach(cfg))
	if _, _, err := Inspect(cfg); !errors.Is(err, ErrNotFound) {
		t.Errorf("a detached pool: %v, want ErrNotFound", err)
	}
	if leaks := kernelLeaks(); len(leaks) > 0 {
		t.Errorf("attached: %q", leaks)
	}
}
