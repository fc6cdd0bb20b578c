package disks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper"
)

// A device fails writes while it is told to, and only then; what was written before and after is there.
func TestFailWrites(t *testing.T) {
	if err := devmapper.Probe(); err != nil {
		t.Skipf("needs device-mapper, run by `make test-uml`: %v", err)
	}
	const size = 1 << 20
	loop := Loop(t, filepath.Join(t.TempDir(), "disk.img"), size)
	path := Map(t, "disks-test", Linear(loop, 0, size))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DSYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, want := range []error{nil, unix.EIO, nil} {
		if want == nil {
			Swap(t, "disks-test", Linear(loop, 0, size))
		} else {
			Swap(t, "disks-test", FailWrites(loop, size))
		}
		if _, err := f.WriteAt([]byte{byte('a' + i)}, int64(i)*4096); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	found := make([]byte, 3*4096)
	if _, err := f.ReadAt(found, 0); err != nil || found[0] != 'a' || found[8192] != 'c' {
		t.Errorf("found %q and %q, %v", found[0], found[8192], err)
	}
}
