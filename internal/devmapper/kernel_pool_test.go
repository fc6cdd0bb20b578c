package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

func TestCreateOpenDetach(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	check(t, p.CreateThin(7))
	if _, err := Create(cfg); !errors.Is(err, ErrHasSuperblock) {
		t.Fatalf("second Create: %v, want ErrHasSuperblock", err)
	}
	q, err := Open(t.Context(), cfg) // active: adopted
	check(t, err)
	check(t, q.Close())
	check(t, p.Close())
	check(t, p.Close())
	if _, err := p.Status(); err == nil {
		t.Error("a closed pool answers")
	}
	for range 2 {
		check(t, Detach(cfg))
		if leaks := kernelLeaks(); len(leaks) > 0 {
			t.Fatalf("after Detach: %q", leaks)
		}
	}
	if _, err := Create(cfg); !errors.Is(err, ErrHasSuperblock) {
		t.Fatalf("Create after Detach: %v, want ErrHasSuperblock", err)
	}
	q = opened(t, cfg)
	wantThins(t, q, 1, 7)
	path, err := q.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	if want := "/dev/mapper/cim-" + cfg.Name + "-image-1"; path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	if uuid := run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "uuid", filepath.Base(path)); uuid != "CIM-"+
		cfg.UUID+"-1" {
		t.Errorf("dm UUID %s", uuid)
	}
}

func wantThins(t *testing.T, p *Pool, ids ...ID) {
	t.Helper()
	list, err := p.Thins()
	check(t, err)
	var got []ID
	for _, th := range list {
		got = append(got, th.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("thin devices %v, want %v", got, ids)
	}
}

func TestStatusOfNewPool(t *testing.T) {
	p, _ := newPool(t)
	s, err := p.Status()
	check(t, err)
	if s.Mode != ModeReadWrite || s.NeedsCheck || s.HeldRoot || s.UsedData != 2*minBlockSize ||
		s.TotalData != 512*mib ||
		s.TotalMetadata != minMetadataSize || s.UsedMetadata == 0 || s.UsedMetadata > mib/2 || s.TransactionID != 0 {
		t.Errorf("%+v", s)
	}
}

// What a crash between two ioctls of the pool's activation leaves is finished by Open.
func TestOpenFinishesHalfCreatedPool(t *testing.T) {
	for _, step := range []string{"created", "loaded", "suspended"} {
		t.Run(step, func(t *testing.T) {
			p, cfg := newPool(t)
			if step != "suspended" {
				check(t, Detach(cfg))
				metadata, data, err := attachPair(cfg)
				check(t, err)
				_, err = p.ctl.Create(cfg.poolName(), cfg.poolUUID())
				check(t, err)
				if step == "loaded" {
					check(t, p.ctl.Load(cfg.poolUUID(), newPoolTable(metadata, data, cfg.BlockSize), false))
				}
				metadata.close()
				data.close()
			} else {
				suspendDevice(t, cfg.poolUUID())
			}
			q := opened(t, cfg)
			newImage(t, q)
			if s, err := q.Status(); err != nil || s.Mode != ModeReadWrite {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

// A pool that is not as we make it is refused, with what differs.
func TestOpenRefusesForeignPools(t *testing.T) {
	zeroing := func(cfg Config, m, d blockDevice) dmctl.Table {
		t := newPoolTable(m, d, cfg.BlockSize)
		t.Params = strings.Replace(t.Params, "1 error_if_no_space", "2 skip_block_zeroing error_if_no_space", 1)
		return t
	}
	hanging := func(cfg Config, m, d blockDevice) dmctl.Table {
		t := newPoolTable(m, d, cfg.BlockSize)
		t.Params = strings.Replace(t.Params, "1 error_if_no_space", "0", 1)
		return t
	}
	ours := func(cfg Config, m, d blockDevice) dmctl.Table { return newPoolTable(m, d, cfg.BlockSize) }
	tests := []struct {
		name   string
		table  func(Config, blockDevice, blockDevice) dmctl.Table
		change func(t *testing.T, cfg *Config)
		want   string
	}{
		{"as it should be", ours, func(*testing.T, *Config) {}, ""},
		{"zeroing off", zeroing, func(*testing.T, *Config) {}, "zero"},
		{"hangs when full", hanging, func(*testing.T, *Config) {}, "error_if_no_space"},
		{"other block size", ours, func(_ *testing.T, c *Config) { c.BlockSize *= 2 }, "blocks of 65536 bytes"},
		{"other UUID", ours, func(_ *testing.T, c *Config) { c.UUID = uuid.NewString() }, "another one"},
		{"other data", ours, func(t *testing.T, c *Config) {
			other := filepath.Join(t.TempDir(), "other.img")
			run(t, "cp", "--sparse=always", c.Data, other)
			c.Data = other
		}, "data on device"},
		{"data of nobody", ours, func(t *testing.T, c *Config) {
			c.Data = filepath.Join(t.TempDir(), "other.img")
			check(t, createFile(c.Data, 512*mib, (*os.File).Truncate))
		}, "does not hold this pool's data"},
		{"swapped metadata", ours, func(t *testing.T, c *Config) {
			swapped := filepath.Join(t.TempDir(), "swapped.img")
			run(t, "cp", "--sparse=always", c.Metadata, swapped)
			c.Metadata = swapped
		}, "metadata on device"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, cfg := newPool(t)
			check(t, Detach(cfg))
			m, d, err := attachPair(cfg)
			check(t, err)
			_, err = p.ctl.Create(cfg.poolName(), cfg.poolUUID())
			check(t, err)
			check(t, p.ctl.Load(cfg.poolUUID(), tt.table(cfg, m, d), false))
			check(t, p.ctl.Resume(cfg.poolUUID()))
			m.close()
			d.close()
			other := cfg
			tt.change(t, &other)
			q, err := Open(t.Context(), other)
			if tt.want == "" {
				check(t, err)
				check(t, q.Close())
				return
			}
			if !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%v, want ErrForeign with %q", err, tt.want)
			}
			if s, err := p.Status(); err != nil || s.Mode != ModeReadWrite { // and it was left alone
				t.Errorf("afterwards: %+v %v", s, err)
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, cfg *Config)
		want    error
	}{
		{"file system on data", func(t *testing.T, c *Config) { run(t, "mke2fs", "-q", "-F", c.Data) }, ErrForeign},
		{
			"file system on metadata", func(t *testing.T, c *Config) { run(t, "mke2fs", "-q", "-F", c.Metadata) },
			ErrForeign,
		},
		{"damaged superblock", func(t *testing.T, c *Config) {
			p, err := Create(*c)
			check(t, err)
			check(t, p.Close())
			check(t, Detach(*c))
			f, err := os.OpenFile(c.Metadata, os.O_RDWR, 0)
			check(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte{0xff}, 100)
			check(t, err)
		}, ErrHasSuperblock},
		{"no files", func(t *testing.T, c *Config) { check(t, os.Remove(c.Data)) }, fs.ErrNotExist},
		{"one file twice", func(t *testing.T, c *Config) {
			check(t, os.Remove(c.Data))
			check(t, os.Link(c.Metadata, c.Data))
		}, fs.ErrInvalid},
		{"name with a slash", func(_ *testing.T, c *Config) { c.Name = "a/b" }, nil},
		{"odd block size", func(_ *testing.T, c *Config) { c.BlockSize++ }, nil},
		{"garbage that is nothing known", func(t *testing.T, c *Config) { fill(t, c.Metadata, 4096) }, errNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := newConfig(t, 512*mib, minMetadataSize)
			broken := cfg
			tt.prepare(t, &broken)
			p, err := Create(broken)
			if errors.Is(tt.want, errNone) {
				check(t, err)
				check(t, p.Close())
				return
			}
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if leaks := kernelLeaks(); len(leaks) > 0 {
				t.Errorf("left behind: %q", leaks)
			}
		})
	}
}

var errNone = errors.New("no error")

func TestOpenWithoutPool(t *testing.T) {
	cfg := newConfig(t, 512*mib, minMetadataSize)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrNoSuperblock) {
		t.Errorf("blank metadata: %v, want ErrNoSuperblock", err)
	}
	check(t, os.Remove(cfg.Metadata))
	if _, err := Open(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no metadata: %v, want ErrNotExist", err)
	}
	check(t, Detach(cfg)) // lost files are no reason to fail
}

// A kill anywhere within Create leaves what either Create or Finish finishes.
func TestCreateCutOff(t *testing.T) {
	for _, step := range []string{
		"wiped", "created", "formatted", "removed", "marked", "started", "stamp made",
		"stamp active", "stamped",
	} {
		t.Run(step, func(t *testing.T) {
			cfg := newConfig(t, 512*mib, minMetadataSize)
			p, err := withDevices(cfg, func(p *Pool, metadata, data blockDevice) error {
				check(t, clearMetadata(metadata, data))
				if step == "wiped" {
					return nil
				}
				d, err := p.halfCreated()
				check(t, err)
				if step == "created" {
					return nil
				}
				check(t, p.ctl.Load(d.UUID, newPoolTable(metadata, data, cfg.BlockSize), false))
				if step == "formatted" {
					return nil
				}
				check(t, p.ctl.Remove(d.UUID))
				if step != "removed" {
					check(t, setOwner(metadata, cfg.owner()))
				}
				return stampUntil(t, p, step, metadata, data)
			})
			check(t, err)
			check(t, p.Close())
			q, err := Create(cfg)
			if formatted := step != "wiped" && step != "created"; formatted != errors.Is(err, ErrHasSuperblock) {
				t.Fatalf("Create: %v", err)
			}
			for range 2 { // again changes nothing
				if err != nil {
					q, err = Finish(t.Context(), cfg)
					check(t, err)
				}
				check(t, q.Close())
				err = errNone
			}
			q = opened(t, cfg)
			newImage(t, q)
			check(t, Detach(cfg))
			sb, err := parseSuperblock(mustFirstBlock(t, cfg.Metadata))
			check(t, err)
			if sb.owner != cfg.owner() {
				t.Error("it is not marked as ours")
			}
			wantThins(t, opened(t, cfg), 1)
		})
	}
}

// stampUntil goes on with a pool that is formatted.
func stampUntil(t *testing.T, p *Pool, step string, metadata, data blockDevice) error {
	t.Helper()
	if step == "removed" || step == "marked" {
		return nil
	}
	check(t, p.start(metadata, data))
	if step == "started" {
		return nil
	}
	check(t, p.message("create_thin 0"))
	if step == "stamp made" {
		return nil
	}
	_, err := p.activate(stampID, kindStamp, 2*minBlockSize, false)
	check(t, err)
	if step == "stamp active" {
		return nil
	}
	return p.writeFirstStamp()
}

func mustFirstBlock(t *testing.T, path string) []byte {
	t.Helper()
	b, err := readFirstBlock(path)
	check(t, err)
	return b
}

// While no pool is active, only the mark in the metadata tells a swapped file.
func TestOpenRefusesSwappedMetadata(t *testing.T) {
	a, cfg := newPool(t)
	newImage(t, a)
	check(t, Detach(cfg))
	_, other := newPool(t)
	check(t, Detach(other))
	swapped := cfg
	swapped.Metadata = other.Metadata
	if _, err := Open(t.Context(), swapped); !errors.Is(err, ErrForeign) {
		t.Errorf("%v, want ErrForeign", err)
	}
	if leaks := kernelLeaks(); len(leaks) > 0 {
		t.Errorf("left behind: %q", leaks)
	}
	wantThins(t, opened(t, cfg), 1)
	// The mark survives the kernel's own writes.
	check(t, a.ctl.Message(cfg.poolUUID(), "set_transaction_id 0 1"))
	check(t, Detach(cfg))
	if sb, err := parseSuperblock(mustFirstBlock(t, cfg.Metadata)); err != nil || sb.owner != cfg.owner() {
		t.Errorf("%+v, %v", sb, err)
	}
}

// A data device that shrank is refused by the kernel, and nothing is left.
func TestOpenRefusesShorterData(t *testing.T) {
	p, cfg := newPool(t)
	check(t, p.Close())
	check(t, Detach(cfg))
	check(t, os.Truncate(cfg.Data, 256*mib))
	if _, err := Open(t.Context(), cfg); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v, want EINVAL", err)
	}
	if leaks := kernelLeaks(); len(leaks) > 0 {
		t.Errorf("left behind: %q", leaks)
	}
}

// Given devices are used as they are: here, loop devices that somebody else made.
func TestBlockDevices(t *testing.T) {
	cfg := newConfig(t, 512*mib, minMetadataSize)
	metadata, data, err := attachPair(cfg)
	check(t, err)
	defer metadata.close()
	defer data.close()
	given := cfg
	given.Metadata, given.Data = metadata.path, data.path
	t.Cleanup(func() { check(t, Detach(given)) })
	p := created(t, given)
	newImage(t, p)
	rival := given
	rival.Name += "rival"
	rival.UUID = uuid.NewString()
	if _, err = Open(t.Context(), rival); !errors.Is(err, ErrForeign) {
		t.Errorf("a second pool on the same devices: %v, want ErrForeign", err)
	}
	r := &Pool{cfg: rival, ctl: p.ctl} // past our own check
	if err := r.start(metadata, data); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), given.poolName()) {
		t.Errorf("a second pool on the same devices, says the kernel: %v, want ErrBusy that names the first", err)
	}
	wantThins(t, p, 1)
}

func TestCreateNameTaken(t *testing.T) {
	_, cfg := newPool(t)
	other := newConfig(t, 512*mib, minMetadataSize)
	other.Name = cfg.Name
	if _, err := Create(other); !errors.Is(err, ErrForeign) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v, want ErrForeign and EBUSY", err)
	}
}

// The kernel finds the loop device of a file by its inode, under whatever name.
func TestLoopFoundByInode(t *testing.T) {
	cfg := newConfig(t, 512*mib, minMetadataSize)
	a, err := attach(cfg.Data)
	check(t, err)
	defer a.close()
	alias := filepath.Join(t.TempDir(), "alias.img")
	check(t, os.Link(cfg.Data, alias))
	b, err := attach(alias)
	check(t, err)
	defer b.close()
	if a.dev != b.dev {
		t.Errorf("two loop devices on one file: %s, %s", a.path, b.path)
	}
	part, err := attach(cfg.Metadata)
	check(t, err)
	if part.dev == a.dev {
		t.Errorf("one loop device for two files")
	}
	part.close()
	if n := run(t, "losetup", "-n", "-j", cfg.Metadata); n != "" {
		t.Errorf("a loop device that nobody holds stays: %s", n)
	}
	foreign := run(t, "losetup", "-f", "--show", "-o", "4096", cfg.Metadata)
	defer run(t, "losetup", "-d", foreign)
	if _, err := attach(cfg.Metadata); !errors.Is(err, ErrForeign) {
		t.Errorf("loop device with an offset: %v, want ErrForeign", err)
	}
}

// A held metadata snapshot of a dead process is released; one that is in use is not.
func TestHeldMetadataSnapshot(t *testing.T) {
	p, cfg := newPool(t)
	held := func() bool {
		s, err := p.Status()
		check(t, err)
		return s.HeldRoot
	}
	check(t, p.message("reserve_metadata_snap"))
	if !held() {
		t.Fatal("not reserved")
	}
	opened(t, cfg)
	if held() {
		t.Error("Open did not release it")
	}
	check(t, p.message("reserve_metadata_snap"))
	wantThins(t, p)
	if held() {
		t.Error("Thins did not release it")
	}
	unlock, err := lockPool(cfg)
	check(t, err)
	defer unlock()
	if err := unix.Flock(int(openFile(t, cfg.Metadata).Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err,
		unix.EWOULDBLOCK) {
		t.Errorf("the lock does not exclude: %v", err)
	}
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
