package ext4

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	mib        = int64(1) << 20
	deviceSize = 64 * mib
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFile makes a sparse file, which reads as zeros, like a new thin device.
func newFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, os.Truncate(path, size))
	return path
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

func TestUUID(t *testing.T) {
	const id = "11111111-2222-3333-4444-555555555555"
	path := newFile(t, deviceSize)
	if _, err := UUID(path); !errors.Is(err, ErrNoFilesystem) {
		t.Errorf("%v, want ErrNoFilesystem", err)
	}
	check(t, Make(t.Context(), path, id))
	if got, err := UUID(path); err != nil || got != id {
		t.Errorf("%s, %v, want %s", got, err, id)
	}
	check(t, os.Truncate(path, 1500))
	if _, err := UUID(path); err == nil || errors.Is(err, ErrNoFilesystem) {
		t.Errorf("a device that ends in its superblock: %v", err)
	}
	if _, err := UUID(path + "-none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no device: %v", err)
	}
}
