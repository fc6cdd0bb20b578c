package devmapper

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
)

// A power cut while the kernel makes a metadata snapshot leaves one in the superblock
// that the space map does not count. It is struck out; one that is counted is released by
// the kernel. Either way the metadata are sound afterwards, and the devices whole.
func TestPowerCutWhileListing(t *testing.T) {
	for name, c := range map[string]struct {
		counted bool
		block   uint64 // in the superblock; 0: the kernel's own
		copied  bool   // the snapshot's block was written
	}{
		"counted":                {true, 0, false},
		"not counted":            {false, 1000, true},
		"not counted, not there": {false, 1001, false},
		"outside the metadata":   {false, 1 << 40, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, cfg := newPool(t)
			path := newImage(t, p)
			fill(t, path, 4*mib)
			want := digest(t, path)
			if c.counted {
				check(t, p.message("reserve_metadata_snap"))
			}
			check(t, Detach(cfg))
			if !c.counted {
				hold(t, cfg.Metadata, c.block, c.copied)
			}
			q := opened(t, cfg)
			if s, err := q.Status(); err != nil || s.HeldRoot || s.checkWritable() != nil {
				t.Fatalf("%+v %v", s, err)
			}
			if thins, err := q.Thins(); err != nil || len(thins) != 1 {
				t.Errorf("%+v %v", thins, err)
			}
			check(t, q.CreateSnapshot(2, 1))
			path, err := q.Activate(2, KindSnapshot, deviceSize, false)
			check(t, err)
			if digest(t, path) != want {
				t.Error("the data changed")
			}
			check(t, Detach(cfg))
			check(t, checkOffline(t, cfg))
		})
	}
}

// A power cut while the kernel releases a metadata snapshot leaves one that the space map
// counts and the superblock does not name. It is named again and released, also when the
// pool was in use for long since: nothing leaks, and the devices are whole.
func TestPowerCutInRelease(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	fill(t, path, 4*mib)
	want := digest(t, path)
	check(t, p.message("reserve_metadata_snap"))
	check(t, p.CreateThin(2))
	late, err := p.Activate(2, KindImage, deviceSize, false)
	check(t, err)
	fill(t, late, 8*mib)
	check(t, Detach(cfg))
	hold(t, cfg.Metadata, 0, false)
	if err := checkOffline(t, cfg); !errors.Is(err, ErrDamaged) {
		t.Fatalf("nothing leaked: %v", err)
	}
	q := opened(t, cfg)
	if s, err := q.Status(); err != nil || s.HeldRoot || s.checkWritable() != nil {
		t.Errorf("%+v %v", s, err)
	}
	wantThins(t, q, 1, 2)
	path, err = q.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	if digest(t, path) != want {
		t.Error("the data changed")
	}
	check(t, Detach(cfg))
	check(t, checkOffline(t, cfg))
}

// Metadata that do not pass the check are not given to the kernel. The error names the
// remedy.
func TestOpenDamaged(t *testing.T) {
	p, cfg := newPool(t)
	fill(t, newImage(t, p), 4*mib)
	check(t, Detach(cfg))
	f, err := os.OpenFile(cfg.Metadata, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	block, err := readBlock(f, 0)
	check(t, err)
	sb, err := parseSuperblock(block)
	check(t, err)
	_, err = f.WriteAt(make([]byte, metadataBlock), int64(sb.detailsRoot)*metadataBlock)
	check(t, err)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrDamaged) ||
		!strings.Contains(err.Error(), "consumer pool repair") {
		t.Errorf("%v, want ErrDamaged and the remedy", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	check(t, f.Close())
	_, err = RepairMetadata(t.Context(), cfg, 0)
	check(t, err)
	opened(t, cfg)
}

// hold writes a metadata snapshot's block into the superblock, as the kernel does before
// it is counted.
func hold(t *testing.T, path string, at uint64, copied bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	block := make([]byte, metadataBlock)
	_, err = f.ReadAt(block, 0)
	check(t, err)
	if copied {
		twin := []byte(strings.Clone(string(block)))
		binary.LittleEndian.PutUint64(twin[8:], at)
		binary.LittleEndian.PutUint32(twin, blockChecksum(twin, superblockSalt))
		_, err = f.WriteAt(twin, int64(at)*metadataBlock)
		check(t, err)
	}
	binary.LittleEndian.PutUint64(block[offHeldRoot:], at)
	binary.LittleEndian.PutUint32(block, blockChecksum(block, superblockSalt))
	_, err = f.WriteAt(block, 0)
	check(t, err)
}
