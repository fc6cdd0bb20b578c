package disks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper"
)

// A device fails writes while it is told to, and only then; what was written before and
// after is there.
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
	for i, c := range []struct {
		table string
		want  error
	}{
		{table: Linear(loop, 0, size)},
		{table: FailWrites(loop, size), want: unix.EIO},
		{table: Linear(loop, 0, size)},
		{table: FailRange(loop, size, 3*4096, 4*4096), want: unix.EIO},
		{table: FailRange(loop, size, 3*4096, 4*4096)},
	} {
		Swap(t, "disks-test", c.table)
		if _, err := f.WriteAt([]byte{byte('a' + i)}, int64(i)*4096); !errors.Is(err, c.want) {
			t.Errorf("write %d: %v, want %v", i, err, c.want)
		}
	}
	Swap(t, "disks-test", Linear(loop, 0, size))
	f.Close() // with the last one goes what the page cache kept of the failed writes
	if f, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, text := make([]byte, 5*4096), ""
	if _, err := f.ReadAt(found, 0); err != nil {
		t.Error(err)
	}
	for i := 0; i < len(found); i += 4096 {
		text += string(found[i])
	}
	if text != "a\x00c\x00e" {
		t.Errorf("found %q", text)
	}
}
