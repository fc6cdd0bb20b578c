package devmapper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs of the given size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needDM(t)
	dir := t.TempDir()
	check(t, unix.Mount("small", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	return dir
}

// fillUp leaves nothing of a file system.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	check(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, metadataBlock))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// The disk that a pool's metadata lie on gets full: they are written to nevertheless,
// also where the file came with holes. They grow only if there is room, and stay as they
// were.
func TestMetadataOnFullDisk(t *testing.T) {
	dir := smallDisk(t, "8m")
	metadata := filepath.Join(dir, "metadata.img")
	data := filepath.Join(t.TempDir(), "data.img")
	err := CreateFiles(data, metadata, 512*mib, 16*mib)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("more metadata than there is room: %v, want ENOSPC", err)
	}
	cfg := Config{Name: "full", UUID: uuid.NewString(), BlockSize: minBlockSize, Data: data, Metadata: metadata}
	check(t, os.Truncate(metadata, 4*mib)) // an operator's own file, with holes
	check(t, os.Truncate(data, 512*mib))
	t.Cleanup(func() { check(t, Detach(cfg)) })
	p := created(t, cfg)
	fillUp(t, dir)
	for id := ID(1); id < 400; id++ {
		check(t, p.CreateThin(id))
	}
	if err := p.GrowMetadata(32 * mib); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("grown on a full disk: %v, want ENOSPC", err)
	}
	if s, err := p.Status(); err != nil || s.Mode != ModeReadWrite || s.NeedsCheck || s.TotalMetadata != 4*mib {
		t.Errorf("%+v %v", s, err)
	}
	if info, err := os.Stat(metadata); err != nil || info.Size() != 4*mib {
		t.Errorf("the file has another size: %v %v", info, err)
	}
	check(t, p.Close())
	check(t, Detach(cfg))
	if list, err := opened(t, cfg).Thins(); err != nil || len(list) != 399 {
		t.Errorf("%d thin devices, %v", len(list), err)
	}
}
