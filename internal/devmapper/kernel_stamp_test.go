package devmapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// copyOf copies a file of a pool that is not in use.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	kept := filepath.Join(t.TempDir(), filepath.Base(path))
	run(t, "cp", "--sparse=always", path, kept)
	return kept
}

// wantRefused wants Open to refuse with these words, and not to write a byte.
func wantRefused(t *testing.T, cfg Config, says string) {
	t.Helper()
	data, metadata := digest(t, cfg.Data), digest(t, cfg.Metadata)
	p, err := Open(t.Context(), cfg)
	if err == nil {
		check(t, p.Close())
	}
	if !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("%v, want ErrForeign with %q", err, says)
	}
	if leaks := kernelLeaks(); len(leaks) > 0 {
		t.Errorf("left behind: %q", leaks)
	}
	if digest(t, cfg.Data) != data || digest(t, cfg.Metadata) != metadata {
		t.Error("the files were written to")
	}
}

// Data and metadata of one pool, and of different times: each pair but that of one time
// is refused, and so is a pair that is older than the generation that somebody remembers.
func TestCopiesFromAnotherTime(t *testing.T) {
	cfg := newConfig(t, 16*mib, minMetadataSize)
	p := created(t, cfg)
	newImage(t, p)
	var data, metadata [3]string
	var generation uint64
	for day := range 3 {
		var err error
		generation, err = p.RaiseGeneration()
		check(t, err)
		check(t, p.Close())
		check(t, Detach(cfg))
		data[day], metadata[day] = copyOf(t, cfg.Data), copyOf(t, cfg.Metadata)
		p, err = Open(t.Context(), cfg)
		check(t, err)
	}
	check(t, p.Close())
	check(t, Detach(cfg))
	for d := range data {
		for m := range metadata {
			mixed := cfg
			mixed.Data, mixed.Metadata = data[d], metadata[m]
			switch {
			case d > m:
				wantRefused(t, mixed, "the metadata on "+metadata[m]+" are a copy")
			case d < m:
				wantRefused(t, mixed, "the data on "+data[d]+" are a copy")
			default:
				wantThins(t, opened(t, mixed), 1)
				check(t, Detach(mixed))
				if mixed.Generation = generation; d < 2 {
					wantRefused(t, mixed, "consumer recover")
				}
			}
		}
	}
	cfg.Generation = generation
	wantThins(t, opened(t, cfg), 1)
}

// Metadata that nothing marks are not believed whatever data they are put beside.
func TestUnmarkedMetadataBesideOtherData(t *testing.T) {
	cfg, other := newConfig(t, 16*mib, minMetadataSize), newConfig(t, 16*mib, minMetadataSize)
	newImage(t, created(t, cfg))
	created(t, other)
	check(t, Detach(cfg))
	check(t, Detach(other))
	unmark(t, cfg)
	mixed := cfg
	mixed.Data = other.Data
	wantRefused(t, mixed, "another pool, "+other.UUID)
	check(t, os.Truncate(other.Data, 0))
	check(t, os.Truncate(other.Data, 16*mib))
	wantRefused(t, mixed, "does not hold this pool's data")
	wantThins(t, opened(t, cfg), 1)
}

// A pool is not created on the data of another.
func TestCreateOnDataOfAPool(t *testing.T) {
	_, old := newPool(t)
	check(t, Detach(old))
	cfg := newConfig(t, 512*mib, minMetadataSize)
	cfg.Data = old.Data
	if _, err := Create(cfg); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), old.UUID) {
		t.Errorf("%v, want ErrForeign with the UUID %s", err, old.UUID)
	}
}

// A power cut anywhere in RaiseGeneration, and in the next call, leaves a pool that opens
// and can be raised again; a torn stamp is as if it had not been written.
func TestRaiseGenerationCutOff(t *testing.T) {
	steps := []string{"nothing", "announced", "raised"}
	for i := range len(steps) * len(steps) * 2 {
		first, second, torn := steps[i%3], steps[i/3%3], i >= 9
		t.Run(fmt.Sprintf("%s, %s, torn %t", first, second, torn), func(t *testing.T) {
			p, cfg := newPool(t)
			newImage(t, p)
			_, err := p.RaiseGeneration()
			check(t, err)
			before, err := p.Status()
			check(t, err)
			for _, step := range []string{first, second} {
				raiseGenerationUntil(t, p, step, torn)
				check(t, p.Close())
				check(t, Detach(cfg))
				p, err = Open(t.Context(), cfg)
				check(t, err)
			}
			after, err := p.RaiseGeneration()
			check(t, err)
			if after <= before.TransactionID {
				t.Errorf("generation %d after %d", after, before.TransactionID)
			}
			check(t, p.Close())
			check(t, Detach(cfg))
			wantThins(t, opened(t, cfg), 1)
		})
	}
}

// raiseGenerationUntil begins RaiseGeneration and leaves it after a step, the last write
// torn or not.
func raiseGenerationUntil(t *testing.T, p *Pool, step string, torn bool) {
	t.Helper()
	s, err := p.Status()
	check(t, err)
	f, err := p.data.reopen(os.O_RDWR)
	check(t, err)
	defer f.Close()
	stamp, err := checkStamp(p.cfg, f, p.stampAt, s.TransactionID)
	check(t, err)
	stamp.generation, stamp.next = s.TransactionID, max(stamp.next, s.TransactionID)+1
	stamp.number++
	tear := func(s dataStamp) {
		block := s.pack()
		clear(block[stampSum:])
		_, err := f.WriteAt(block, p.stampAt[s.place()])
		check(t, err)
	}
	switch {
	case step == "nothing" && torn:
		tear(stamp)
	case step == "announced", step == "raised":
		check(t, stamp.write(f, p.stampAt[stamp.place()]))
	}
	if step == "raised" {
		check(t, p.message(fmt.Sprintf("set_transaction_id %d %d", stamp.generation, stamp.next)))
		if stamp.number++; torn {
			tear(stamp)
		}
	}
}

// After a reboot the kernel gives the disks other names: none is written to, and the
// error names the right ones.
func TestDisksRenamed(t *testing.T) {
	cfg := newConfig(t, 512*mib, 4*mib)
	dir := filepath.Dir(cfg.Data)
	third := filepath.Join(dir, "third.img")
	check(t, createFile(third, 512*mib, (*os.File).Truncate))
	disks := map[string]string{} // by what is on them
	for _, file := range []string{cfg.Data, cfg.Metadata, third} {
		disks[file] = run(t, "losetup", "--find", "--show", file)
		t.Cleanup(func() { run(t, "losetup", "--detach", disks[file]) })
	}
	was := cfg
	was.Data, was.Metadata = disks[cfg.Data], disks[cfg.Metadata]
	t.Cleanup(func() { check(t, Detach(was)) })
	p := created(t, was)
	newImage(t, p)
	check(t, p.Close())
	check(t, Detach(was))
	run(t, "mke2fs", "-q", "-F", third)
	before := digest(t, third)
	right := fmt.Sprintf("--data %s --metadata %s", was.Data, was.Metadata)
	for name, now := range map[string]Config{
		"data on another":     {Data: disks[third], Metadata: was.Metadata},
		"metadata on another": {Data: was.Data, Metadata: disks[third]},
		"one for the other":   {Data: was.Metadata, Metadata: was.Data},
		"data on none":        {Data: "/dev/no-such-disk", Metadata: was.Metadata},
		"both on none":        {Data: "/dev/no-such-disk", Metadata: "/dev/nor-this"},
	} {
		now.Name, now.UUID, now.BlockSize = was.Name, was.UUID, was.BlockSize
		_, err := Open(t.Context(), now)
		if err == nil || !strings.Contains(err.Error(), right) {
			t.Errorf("%s: %v, want %s", name, err, right)
		}
	}
	if digest(t, third) != before {
		t.Error("the other disk was written to")
	}
	wantThins(t, opened(t, was), 1)
}

// A pool that takes no changes is opened, and keeps its generation.
func TestRaiseGenerationReadOnly(t *testing.T) {
	p, cfg := newPool(t)
	check(t, p.CreateThin(1))
	check(t, Detach(cfg))
	patch(t, cfg, func(b []byte) {
		b[offFlags] |= flagNeedsCheck
		withChecksum(b[:metadataBlock], superblockSalt)
	})
	if _, err := opened(t, cfg).RaiseGeneration(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
}

// The stamp is nobody's device.
func TestStampIsHidden(t *testing.T) {
	p, _ := newPool(t)
	for name, err := range map[string]error{
		"CreateThin": p.CreateThin(stampID), "Delete": p.Delete(stampID),
		"CreateSnapshot": p.CreateSnapshot(1, stampID),
	} {
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
	if _, err := p.Activate(stampID, KindSnapshot, deviceSize, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Activate: %v, want EINVAL", err)
	}
	wantThins(t, p)
	wantActive(t, p)
}

func TestStablePath(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "vdz")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 1234))); err != nil {
		t.Skipf("needs root: %v", err)
	}
	check(t, os.Mkdir(filepath.Join(dir, "by-id"), 0o700))
	if got := stableIn(filepath.Join(dir, "by-id"), node); got != node {
		t.Errorf("without a link: %s", got)
	}
	check(t, os.Symlink("nowhere", filepath.Join(dir, "by-id", "a-dangling")))
	check(t, os.Symlink("../vdz", filepath.Join(dir, "by-id", "scsi-1")))
	for path, want := range map[string]string{
		node: filepath.Join(dir, "by-id", "scsi-1"), "/dev/null": "/dev/null", "/no/such": "/no/such", dir: dir,
		"/dev/disk/by-uuid/x": "/dev/disk/by-uuid/x",
	} {
		if got := stableIn(filepath.Join(dir, "by-id"), path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
