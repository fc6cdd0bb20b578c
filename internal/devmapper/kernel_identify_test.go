package devmapper

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"testing"

	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper/ext4"
)

// What a pool is called and made of is found out from where it lies, active or not; also
// of one that thin_repair left unmarked, while it is active, and when it has been active
// again.
func TestIdentify(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	where := Config{Name: cfg.Name, Data: cfg.Data, Metadata: cfg.Metadata}
	identify := func(want bool) {
		t.Helper()
		if got, active, err := Identify(where); err != nil || !reflect.DeepEqual(got, cfg) || active != want {
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
	unmark(t, cfg)
	if _, _, err := Identify(where); !errors.Is(err, ErrUnidentified) {
		t.Errorf("%v, want ErrUnidentified", err)
	}
	told := where
	told.UUID = cfg.UUID
	if got, _, err := Identify(told); err != nil || !reflect.DeepEqual(got, cfg) {
		t.Errorf("told: %+v, %v", got, err)
	}
	wantThins(t, opened(t, cfg), 1)
	identify(true)
	check(t, Detach(cfg))
	identify(false) // Open has marked it
}

// unmark takes the mark from the metadata of a pool that is not active.
func unmark(t *testing.T, cfg Config) {
	t.Helper()
	check(t, offline(cfg, func(metadata *blockDevice) error { return setOwner(*metadata, uuid.Nil) }))
}

// An active pool whose metadata are not marked is known by its dm UUID; marked ones say
// themselves what they are.
func TestIdentifyByDeviceUUID(t *testing.T) {
	p, cfg := newPool(t)
	if got, err := activeUUID(p.ctl, cfg.Name); err != nil || got != cfg.UUID {
		t.Errorf("%s, %v, want %s", got, err, cfg.UUID)
	}
	_, other := newPool(t)
	check(t, Detach(other))
	where := Config{Name: cfg.Name, Data: other.Data, Metadata: other.Metadata}
	if got, active, err := Identify(where); err != nil || got.UUID != other.UUID || active {
		t.Errorf("another pool's metadata: %s, active %t, %v, want %s", got.UUID, active, err, other.UUID)
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

// The UUID of a file system is read while it is mounted, too; a device without one says
// so.
func TestFilesystemUUID(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	if _, err := FilesystemUUID(path); !errors.Is(err, ext4.ErrNoFilesystem) {
		t.Errorf("%v, want ext4.ErrNoFilesystem", err)
	}
	check(t, MakeFilesystem(t.Context(), path, cfg.UUID))
	if id, err := FilesystemUUID(path); err != nil || id != cfg.UUID {
		t.Errorf("%s, %v, want %s", id, err, cfg.UUID)
	}
	m, err := MountDetached(path, ext4.MountBuild)
	check(t, err)
	defer m.Close()
	if id, err := FilesystemUUID(path); err != nil || id != cfg.UUID {
		t.Errorf("mounted: %s, %v, want %s", id, err, cfg.UUID)
	}
}
