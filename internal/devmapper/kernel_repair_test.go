package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

func TestGrow(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	fill(t, path, 4*mib)
	want := digest(t, path)
	for range 2 { // again changes nothing
		check(t, p.GrowData(768*mib))
		check(t, p.GrowMetadata(8*mib))
		if s, err := p.Status(); err != nil || s.TotalData != 768*mib || s.TotalMetadata != 8*mib ||
			s.Mode != ModeReadWrite {
			t.Errorf("%+v %v", s, err)
		}
	}
	for name, err := range map[string]error{
		"less data": p.GrowData(512 * mib), "less metadata": p.GrowMetadata(4 * mib),
		"too much metadata": p.GrowMetadata(17 << 30),
	} {
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
	check(t, Detach(cfg))
	q := opened(t, cfg)
	if s, err := q.Status(); err != nil || s.TotalData != 768*mib || s.TotalMetadata != 8*mib {
		t.Errorf("after Open: %+v %v", s, err)
	}
	path, err := q.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	if digest(t, path) != want {
		t.Error("the data changed")
	}
}

// Data that the metadata cannot count are refused before anything changes: with its file
// enlarged, the pool could not be opened any more.
func TestGrowBeyondMetadata(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	if err := p.GrowData(2 << 40); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	if data, err := os.Stat(cfg.Data); err != nil || data.Size() != 512*mib {
		t.Errorf("the data file: %v, %v", data.Size(), err)
	}
	check(t, p.GrowData(768*mib))
	check(t, Detach(cfg))
	q := opened(t, cfg)
	check(t, q.GrowMetadata(64*mib))
	check(t, q.GrowData(2<<40))
}

// Growing is what brings a full pool back, with the device still open.
func TestGrowFullPool(t *testing.T) {
	cfg := newConfig(t, 16*mib, minMetadataSize)
	p := created(t, cfg)
	path := newImage(t, p)
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_SYNC, 0)
	check(t, err)
	defer f.Close()
	buf := []byte(strings.Repeat("full", 16<<10))
	for err = nil; err == nil; _, err = f.Write(buf) {
	}
	if s, err := p.Status(); err != nil || s.Mode != ModeOutOfDataSpace {
		t.Fatalf("%+v %v", s, err)
	}
	check(t, p.GrowData(64*mib))
	if s, err := p.Status(); err != nil || s.Mode != ModeReadWrite || s.TotalData != 64*mib {
		t.Fatalf("%+v %v", s, err)
	}
	if _, err := f.WriteAt(buf, 20*mib); err != nil {
		t.Errorf("write after the growth: %v", err)
	}
	check(t, p.CreateThin(2))
}

// A table that the kernel refuses leaves the pool as it was, and not suspended.
func TestReloadRefused(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	metadata, data, err := attachPair(cfg)
	check(t, err)
	data.size /= 2
	err = p.reload(newPoolTable(metadata, data, cfg.BlockSize))
	metadata.close()
	data.close()
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v, want EINVAL", err)
	}
	d, err := p.ctl.Find(cfg.poolUUID())
	check(t, err)
	if s, err := p.Status(); d.Suspended() || err != nil || s.Mode != ModeReadWrite || s.TotalData != 512*mib {
		t.Errorf("suspended %t, %+v %v", d.Suspended(), s, err)
	}
	check(t, p.CreateThin(2))
}

// A kill between the file's growth and the pool's is finished by the next call, or by
// Open.
func TestGrowCutOff(t *testing.T) {
	p, cfg := newPool(t)
	check(t, os.Truncate(cfg.Data, 640*mib))
	check(t, p.GrowData(640*mib))
	if s, err := p.Status(); err != nil || s.TotalData != 640*mib {
		t.Errorf("%+v %v", s, err)
	}
	check(t, os.Truncate(cfg.Data, 768*mib))
	check(t, Detach(cfg))
	if s, err := opened(t, cfg).Status(); err != nil || s.TotalData != 768*mib {
		t.Errorf("%+v %v", s, err)
	}
}

// Somebody looks into the loop device while the pool is detached, as udevd does, so that
// it stays behind; the file is enlarged. The next Open takes its new size.
func TestLoopHeldWhileFileGrows(t *testing.T) {
	p, cfg := newPool(t)
	loops, err := findLoops(cfg.Data)
	check(t, err)
	check(t, p.Close())
	check(t, Detach(cfg))
	check(t, os.Truncate(cfg.Data, 768*mib))
	s, err := opened(t, cfg).Status()
	if check(t, closeAll(loops)); err != nil || s.TotalData != 768*mib {
		t.Errorf("%+v %v", s, err)
	}
}

func TestRepairFullMetadata(t *testing.T) {
	cfg := newConfig(t, 8<<30, minMetadataSize)
	p := created(t, cfg)
	exhaustMetadata(t, p)
	if err := checkOffline(t, cfg); !errors.Is(err, ErrBusy) {
		t.Errorf("check of an active pool: %v, want ErrBusy", err)
	}
	if _, err := RepairMetadata(t.Context(), cfg, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("repair of an active pool: %v, want ErrBusy", err)
	}
	before, err := p.Thins()
	check(t, err)
	check(t, Detach(cfg))
	r, err := RepairMetadata(t.Context(), cfg, 8*mib)
	check(t, err)
	if r.Rebuilt || !r.Enlarged || r.Bytes != 8*mib || r.DamagedSaved != "" {
		t.Errorf("%+v", r)
	}
	q := opened(t, cfg)
	after, err := q.Thins()
	check(t, err)
	if !slices.Equal(before, after) {
		t.Errorf("%d devices before, %d after", len(before), len(after))
	}
	check(t, q.CreateThin(maxID))
	check(t, q.Delete(1))
	if s, err := q.Status(); err != nil || s.Mode != ModeReadWrite || s.NeedsCheck || s.TotalMetadata != 8*mib {
		t.Errorf("%+v %v", s, err)
	}
}

// checkOffline lets thin_check read the metadata of a pool that is not active.
func checkOffline(t *testing.T, cfg Config) error {
	t.Helper()
	return offline(cfg, func(metadata *blockDevice) error { return runThinCheck(t.Context(), metadata.path) })
}

// patch changes bytes of the metadata file of a pool that is detached.
func patch(t *testing.T, cfg Config, change func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(cfg.Metadata)
	check(t, err)
	change(b)
	f, err := os.OpenFile(cfg.Metadata, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.Write(b)
	check(t, err)
	check(t, f.Close())
}

func TestRepairDamagedMetadata(t *testing.T) {
	needsCheck := func(b []byte) {
		b[offFlags] |= flagNeedsCheck
		withChecksum(b[:metadataBlock], superblockSalt)
	}
	spaceMap := func(b []byte) {
		const bitmapRoot = 64 + 16 // data_space_map_root.bitmap_root
		at := binary.LittleEndian.Uint64(b[bitmapRoot:]) * metadataBlock
		clear(b[at : at+metadataBlock])
	}
	tests := []struct {
		name             string
		damage           func(b []byte)
		rebuilt, cleared bool
	}{
		{"sound", func([]byte) {}, false, false},
		{"needs a check", needsCheck, false, true},
		{"space map lost", spaceMap, true, false},
		{"superblock lost", func(b []byte) { clear(b[:metadataBlock]) }, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, cfg := newPool(t)
			path := newImage(t, p)
			fill(t, path, 4*mib)
			want := digest(t, path)
			check(t, p.Deactivate(1))
			check(t, p.CreateSnapshot(2, 1))
			check(t, Detach(cfg))
			patch(t, cfg, tt.damage)
			if err := checkOffline(t, cfg); errors.Is(err, ErrDamaged) != tt.rebuilt {
				t.Errorf("metadata: %v", err)
			}
			r, err := RepairMetadata(t.Context(), cfg, 0)
			check(t, err)
			if r.Rebuilt != tt.rebuilt || r.FlagCleared != tt.cleared || r.Enlarged ||
				(r.DamagedSaved != "") != tt.rebuilt || r.Bytes != minMetadataSize {
				t.Errorf("%+v", r)
			}
			if r.DamagedSaved != "" {
				if err := os.Remove(r.DamagedSaved); err != nil {
					t.Error(err)
				}
			}
			check(t, checkOffline(t, cfg))
			if got, _, err := Identify(Config{Name: cfg.Name, Data: cfg.Data, Metadata: cfg.Metadata}); err != nil ||
				!reflect.DeepEqual(got, cfg) {
				t.Errorf("%+v, %v: the metadata are not marked", got, err)
			}
			q := opened(t, cfg)
			wantThins(t, q, 1, 2)
			for id := ID(1); id <= 2; id++ {
				path, err := q.Activate(id, KindSnapshot, deviceSize, false)
				check(t, err)
				if digest(t, path) != want {
					t.Errorf("device %d changed", id)
				}
			}
			check(t, q.CreateThin(3))
		})
	}
}

// A pool that asks for a check is opened, says so, lists, and takes no change.
func TestOpenNeedsCheck(t *testing.T) {
	p, cfg := newPool(t)
	check(t, p.CreateThin(1))
	check(t, Detach(cfg))
	patch(t, cfg, func(b []byte) {
		b[offFlags] |= flagNeedsCheck
		withChecksum(b[:metadataBlock], superblockSalt)
	})
	q := opened(t, cfg)
	if s, err := q.Status(); err != nil || !s.NeedsCheck || s.Mode != ModeReadOnly {
		t.Errorf("%+v %v", s, err)
	}
	wantThins(t, q, 1)
	if err := q.CreateThin(2); !errors.Is(err, ErrReadOnly) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
}

// The kernel says success to a message whose commit fails. We do not.
func TestMessageNotCommitted(t *testing.T) {
	cfg := newConfig(t, 512*mib, minMetadataSize)
	metadata, err := attach(cfg.Metadata)
	check(t, err)
	defer metadata.close()
	flaky := func(mode string) dmctl.Table {
		return dmctl.Table{
			Sectors: uint64(minMetadataSize / sectorSize), Target: "flakey",
			Params: fmt.Sprintf("%s 0 %s",
				dmctl.MajorMinor(metadata.dev), mode),
		}
	}
	ctl, err := openControl()
	check(t, err)
	t.Cleanup(func() { ctl.Close() })
	check(t, ctl.CheckTarget("flakey"))
	uuid := "CIM-flakey-" + cfg.UUID
	d, err := ctl.Create("cim-flakey", uuid)
	check(t, err)
	t.Cleanup(func() { check(t, removeDevice(ctl, d)) })
	check(t, ctl.Load(uuid, flaky("180 0"), false))
	check(t, ctl.Resume(uuid))
	check(t, d.MakeNode())
	given := cfg
	given.Metadata = d.Path()
	p := created(t, given)
	t.Cleanup(func() { check(t, Detach(given)) })
	check(t, p.CreateThin(1))
	check(t, ctl.Load(uuid, flaky("0 180 1 error_writes"), false))
	check(t, ctl.Resume(uuid))
	if err := p.CreateThin(2); !errors.Is(err, ErrReadOnly) {
		t.Errorf("create_thin without a commit: %v, want ErrReadOnly", err)
	}
	s, err := p.Status()
	check(t, err)
	if s.Mode != ModeReadOnly {
		t.Errorf("%+v", s)
	}
	check(t, ctl.Load(uuid, flaky("180 0"), false))
	check(t, ctl.Resume(uuid))
	wantThins(t, p, 1)
}
