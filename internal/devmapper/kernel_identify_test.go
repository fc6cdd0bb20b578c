package devmapper

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// What a pool is called and made of is found out from where it lies, active or not; also of one that an earlier version marked, or a
// repair left unmarked, while it is active, and when it has been active again.
func TestIdentify(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	where := Config{Name: cfg.Name, Data: cfg.Data, Metadata: cfg.Metadata}
	identify := func(want bool) {
		t.Helper()
		if got, active, err := Identify(where); err != nil || got != cfg || active != want {
			t.Errorf("%+v, active %t, %v; want %+v, active %t", got, active, err, cfg, want)
		}
	}
	identify(true)
	misnamed := where
	misnamed.Name = cfg.Name + "x"
	if _, _, err := Identify(misnamed); !errors.Is(err, ErrForeign) {
		t.Errorf("under another name: %v, want ErrForeign", err)
	}
	check(t, Detach(cfg))
	identify(false)
	for name, mark := range map[string][16]byte{"hash": cfg.hashedOwner(), "none": {}} {
		_, err := withDevices(cfg, func(_ *Pool, metadata, _ blockDevice) error {
			return errors.Join(stamp(metadata, mark), errStop)
		})
		if !errors.Is(err, errStop) {
			t.Fatal(err)
		}
		if _, _, err := Identify(where); !errors.Is(err, ErrUnidentified) {
			t.Errorf("%s: %v, want ErrUnidentified", name, err)
		}
		told := where
		told.UUID = cfg.UUID
		if got, _, err := Identify(told); err != nil || got != cfg {
			t.Errorf("%s, told: %+v, %v", name, got, err)
		}
		wantThins(t, opened(t, Open, cfg), 1)
		identify(true)
		check(t, Detach(cfg))
		identify(false) // Open has marked it
	}
}

// errStop ends withDevices.
var errStop = errors.New("stop")

// An active pool of an earlier version is known by its dm UUID.
func TestIdentifyByDeviceUUID(t *testing.T) {
	p, cfg := newPool(t)
	for name, c := range map[string]struct {
		owner [16]byte
		want  string
	}{
		"hash": {cfg.hashedOwner(), cfg.UUID}, "none": {[16]byte{}, cfg.UUID}, "its UUID": {cfg.ownerOf(), cfg.UUID},
	} {
		if got, err := uuidOf(p.ctl, cfg.Name, c.owner); err != nil || got != c.want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	other := cfg
	other.UUID = "6f1cf6e3-6a3c-4c55-8a2b-7a4f0b9f2d10"
	if got, err := uuidOf(p.ctl, cfg.Name, other.ownerOf()); err != nil || got != other.UUID {
		t.Errorf("another pool's metadata: %s, %v, want %s", got, err, other.UUID)
	}
}

func TestIdentifyRefuses(t *testing.T) {
	needDM(t)
	dir := t.TempDir()
	where := Config{Name: "x", Data: dir + "/d", Metadata: dir + "/m"}
	if _, _, err := Identify(where); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	check(t, os.WriteFile(where.Metadata, make([]byte, 1<<20), 0o600))
	if _, _, err := Identify(where); !errors.Is(err, ErrNoSuperblock) {
		t.Errorf("zeros: %v, want ErrNoSuperblock", err)
	}
}

// The UUID of a file system is read while it is mounted, too; a device without one says so.
func TestFilesystemUUID(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	if _, err := FilesystemUUID(path); !errors.Is(err, ErrNoFilesystem) {
		t.Errorf("%v, want ErrNoFilesystem", err)
	}
	check(t, MakeFilesystem(t.Context(), path, cfg.UUID))
	if id, err := FilesystemUUID(path); err != nil || id != cfg.UUID {
		t.Errorf("%s, %v, want %s", id, err, cfg.UUID)
	}
	m, err := MountDetached(path, MountBuild)
	check(t, err)
	defer m.Close()
	if id, err := FilesystemUUID(path); err != nil || id != cfg.UUID {
		t.Errorf("mounted: %s, %v, want %s", id, err, cfg.UUID)
	}
}
