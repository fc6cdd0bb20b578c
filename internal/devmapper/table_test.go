package devmapper

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

func TestPoolTable(t *testing.T) {
	m, d := blockDevice{dev: unix.Mkdev(7, 300)}, blockDevice{dev: unix.Mkdev(8, 16), size: 10<<20 + 777}
	tbl := newPoolTable(m, d, 64<<10)
	if want := (dmctl.Table{
		Sectors: 160 * 128, Target: targetPool,
		Params: "7:300 8:16 128 8 1 error_if_no_space",
	}); tbl != want {
		t.Errorf("%+v, want %+v", tbl, want)
	}
	got, err := parsePoolTable(tbl)
	if err != nil || got.checkSame(m, d, 64<<10) != nil {
		t.Errorf("%+v, %v, %v", got, err, got.checkSame(m, d, 64<<10))
	}
	bad := []string{
		"", "7:0 7:1 128 8", "7:0 7:1 x 8 0", "7:0 7:1 128 8 2 error_if_no_space", "7:0 7:1 128 8 -1",
		"7:0 7:1 128 8 0 more",
	}
	for _, params := range bad {
		if _, err := parsePoolTable(dmctl.Table{Target: targetPool, Params: params}); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", params, err)
		}
	}
	if _, err := parsePoolTable(dmctl.Table{Target: "linear", Params: tbl.Params}); !errors.Is(err, errMalformed) {
		t.Errorf("linear: %v", err)
	}
}
