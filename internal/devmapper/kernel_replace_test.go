package devmapper

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// A pool is lost when neither the kernel nor its metadata have it; not before.
func TestCheckReplaceable(t *testing.T) {
	p, cfg := newPool(t)
	if err := CheckReplaceable(cfg); !errors.Is(err, ErrBusy) {
		t.Errorf("active: %v, want ErrBusy", err)
	}
	check(t, p.Close())
	check(t, Detach(cfg))
	if err := CheckReplaceable(cfg); !errors.Is(err, ErrHasSuperblock) {
		t.Errorf("detached: %v, want ErrHasSuperblock", err)
	}
	away := cfg.Metadata + ".away"
	check(t, os.Rename(cfg.Metadata, away))
	if err := CheckReplaceable(cfg); err != nil {
		t.Errorf("without metadata: %v", err)
	}
	check(t, os.Mkdir(cfg.Metadata, 0o700)) // as a mount point of something else: nothing that can be read
	if err := CheckReplaceable(cfg); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("metadata that cannot be read: %v", err)
	}
	check(t, os.Remove(cfg.Metadata))
	check(t, os.Rename(away, cfg.Metadata))
}

// A block device is empty when it begins with zeros.
func TestCheckEmptyDevice(t *testing.T) {
	needDM(t)
	cfg := newConfig(t, 32*mib, minMetadataSize)
	b, err := attach(cfg.Data)
	check(t, err)
	defer b.close()
	if err := CheckEmpty(b.path); err != nil {
		t.Errorf("zeros: %v", err)
	}
	_, err = b.f.WriteAt([]byte{1}, 15*mib)
	check(t, errors.Join(err, b.f.Sync()))
	if err := CheckEmpty(b.path); !errors.Is(err, ErrForeign) {
		t.Errorf("a byte at 15 MiB: %v, want ErrForeign", err)
	}
}
