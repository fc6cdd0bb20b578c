package devmapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// The errno of the kernel, and the meaning we give them.
func TestErrnoTable(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	check(t, p.CreateThin(2))
	raw := func(msg string) func() error { return func() error { return p.ctl.Message(cfg.poolUUID(), msg) } }
	activate := func(id ID, kind Kind, bytes int64, ro bool) func() error {
		return func() error { _, err := p.Activate(id, kind, bytes, ro); return err }
	}
	tests := []struct {
		name  string
		do    func() error
		errno unix.Errno
		is    error
	}{
		{"create_thin, exists", func() error { return p.CreateThin(1) }, unix.EEXIST, ErrExists},
		{"create_snap, exists", func() error { return p.CreateSnapshot(1, 2) }, unix.EEXIST, ErrExists},
		{"create_thin, id too large", raw("create_thin 16777216"), unix.EINVAL, nil},
		{"create_thin, id too large, ours", func() error { return p.CreateThin(1 << 24) }, unix.EINVAL, nil},
		{"create_thin, negative", func() error { return p.CreateThin(-1) }, unix.EINVAL, nil},
		{"unknown message", raw("nonsense"), unix.EINVAL, nil},
		{"create_snap, no origin", func() error { return p.CreateSnapshot(3, 99) }, unix.ENODATA, ErrNotFound},
		{"create_snap, active origin", func() error { return p.CreateSnapshot(3, 1) }, 0, ErrBusy},
		{"delete, unknown", func() error { return p.Delete(99) }, unix.ENODATA, ErrNotFound},
		{"delete, active", func() error { return p.Delete(1) }, unix.EBUSY, ErrBusy},
		{"set_transaction_id, wrong old", raw("set_transaction_id 5 6"), unix.EINVAL, nil},
		{"release, none held", raw("release_metadata_snap"), unix.EINVAL, nil},
		{"activate, unknown", activate(99, KindImage, deviceSize, false), unix.ENODATA, ErrNotFound},
		{"activate, other size", activate(1, KindImage, 2*deviceSize, false), 0, ErrBusy},
		{"activate, other kind", activate(1, KindSnapshot, deviceSize, false), 0, ErrBusy},
		{"activate, read-only", activate(1, KindImage, deviceSize, true), 0, ErrBusy},
		{"activate, odd size", activate(2, KindImage, 1000, false), unix.EINVAL, nil},
		{"discard, not active", func() error { return p.Discard(2) }, unix.ENXIO, ErrNotFound},
		{
			"status of nothing", func() error { _, err := p.ctl.Find("CIM-none"); return err }, unix.ENXIO,
			dmctl.ErrNotFound,
		},
		{"name with a slash", func() error { _, err := p.ctl.Create("a/b", "CIM-x"); return err }, unix.EINVAL, nil},
		{
			"name too long", func() error { _, err := p.ctl.Create(strings.Repeat("a", 128), "CIM-x"); return err },
			unix.ENAMETOOLONG, nil,
		},
		{"pool with active thins", func() error { return p.ctl.Remove(cfg.poolUUID()) }, unix.EBUSY, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do()
			if err == nil || tt.errno != 0 && !errors.Is(err, tt.errno) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v; want errno %v, sentinel %v", err, tt.errno, tt.is)
			}
		})
	}
	wantThins(t, p, 1, 2)
	wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage})
}

// wantActive checks that these and no others are active; name, path and open count
// follow.
func wantActive(t *testing.T, p *Pool, want ...ActiveDevice) {
	t.Helper()
	list, err := p.Active()
	check(t, err)
	if len(list) != len(want) {
		t.Fatalf("active: %+v, want %+v", list, want)
	}
	for i, w := range want {
		w.Name = p.cfg.thinName(w.Kind, w.ID)
		w.Path = dmctl.Dir + w.Name
		found := false
		for _, got := range list {
			w.Open = got.Open
			found = found || got == w
		}
		if !found {
			t.Errorf("active: %+v, want %+v", list, want[i])
		}
	}
}

func TestActivateIsIdempotent(t *testing.T) {
	p, _ := newPool(t)
	path := newImage(t, p)
	for range 2 {
		again, err := p.Activate(1, KindImage, deviceSize, false)
		check(t, err)
		if again != path {
			t.Errorf("%s, then %s", path, again)
		}
	}
	check(t, os.Remove(path)) // a lost node is made again
	_, err := p.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	f := openFile(t, path)
	check(t, f.Close())
	for range 2 {
		check(t, p.Deactivate(1))
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("node after Deactivate: %v", err)
	}
	wantActive(t, p)
	wantThins(t, p, 1)
}

// The UUID is a lock: an id cannot be active under two names.
func TestSecondActivationRefused(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	if _, err := p.ctl.Create("cim-other-name", cfg.thinUUID(1)); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a second device of the same UUID: %v, want EBUSY", err)
	}
	if _, err := p.ctl.Create(cfg.thinName(KindSnapshot, 2), "CIM-elsewhere-2"); err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, p.ctl.Remove("CIM-elsewhere-2")) }()
	check(t, p.CreateThin(2))
	if _, err := p.Activate(2, KindSnapshot, deviceSize, false); !errors.Is(err, ErrForeign) {
		t.Errorf("name taken by another UUID: %v, want ErrForeign", err)
	}
}

// What a kill between the ioctls of an activation leaves is seen, finished by Activate,
// and removed by Deactivate.
func TestHalfCreated(t *testing.T) {
	p, cfg := newPool(t)
	check(t, p.CreateThin(1))
	leave := map[string]func(){
		"created": func() {
			_, err := p.ctl.Create(cfg.thinName(KindImage, 1), cfg.thinUUID(1))
			check(t, err)
		},
		"loaded": func() {
			_, err := p.ctl.Create(cfg.thinName(KindImage, 1), cfg.thinUUID(1))
			check(t, err)
			check(t, p.ctl.Load(cfg.thinUUID(1), newThinTable(p.dev, 1, deviceSize/2), true))
		},
	}
	for step, crash := range leave {
		crash()
		wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage, HalfCreated: true})
		path, err := p.Activate(1, KindImage, deviceSize, false)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage})
		fill(t, path, deviceSize) // writable, and of the right size
		check(t, p.Deactivate(1))
		crash()
		check(t, p.Deactivate(1))
		wantActive(t, p)
	}
	// A device whose id the pool does not have is not left half-created.
	if _, err := p.Activate(5, KindImage, deviceSize, false); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	wantActive(t, p)
}

// One device is found by one ioctl, however many are active beside it.
func TestFindActive(t *testing.T) {
	cfg := newConfig(t, 512*mib, minMetadataSize)
	var ioctls []string
	cfg.Observe = func(command string, _ time.Duration) { ioctls = append(ioctls, command) }
	p := created(t, cfg)
	newImage(t, p)
	for id := ID(2); id < 6; id++ {
		check(t, p.CreateThin(id))
		_, err := p.Activate(id, KindSnapshot, deviceSize, false)
		check(t, err)
	}
	ioctls = nil
	d, err := p.FindActive(3)
	check(t, err)
	if want := (ActiveDevice{ID: 3, Kind: KindSnapshot, Name: d.Name, Path: d.Path}); d != want || d.Name == "" {
		t.Errorf("found %+v, want %+v", d, want)
	}
	if len(ioctls) != 1 {
		t.Errorf("it took the ioctls %v, want one", ioctls)
	}
	check(t, p.Deactivate(3))
	if d, err := p.FindActive(3); !errors.Is(err, ErrNotFound) {
		t.Errorf("not active: %+v, %v", d, err)
	}
	_, err = p.ctl.Create(cfg.thinName(KindSnapshot, 3), cfg.thinUUID(3))
	check(t, err)
	if d, err := p.FindActive(3); err != nil || !d.HalfCreated {
		t.Errorf("half created: %+v, %v", d, err)
	}
	check(t, p.Deactivate(3))
}

func TestSuspended(t *testing.T) {
	p, cfg := newPool(t)
	newImage(t, p)
	suspend := func() {
		suspendDevice(t, cfg.thinUUID(1))
		wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage, Suspended: true})
	}
	recoveries := map[string]func() error{
		"ResumeSuspended": func() error { _, err := p.ResumeSuspended(); return err },
		"Activate":        func() error { _, err := p.Activate(1, KindImage, deviceSize, false); return err },
	}
	for name, act := range recoveries {
		suspend()
		if err := act(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage})
	}
	suspend()
	suspendDevice(t, cfg.poolUUID())
	if list, err := p.ResumeSuspended(); err != nil || len(list) != 1 || list[0].ID != 1 || !list[0].Suspended {
		t.Errorf("before it was resumed: %+v, %v", list, err)
	}
	wantActive(t, p, ActiveDevice{ID: 1, Kind: KindImage})
	if s, err := p.Status(); err != nil || s.Mode != ModeReadWrite {
		t.Errorf("%+v %v", s, err)
	}
	suspend()
	check(t, p.Deactivate(1))
	suspendDevice(t, cfg.poolUUID())
	check(t, Detach(cfg))
}

// The sealed origin stays as it is, whatever is written to its snapshots.
func TestSnapshotLeavesOriginUnchanged(t *testing.T) {
	p, _ := newPool(t)
	path := newImage(t, p)
	fill(t, path, 8*mib)
	check(t, p.Deactivate(1))
	path, err := p.Activate(1, KindImage, deviceSize, true)
	check(t, err)
	sealed := digest(t, path)
	if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		if _, err = f.WriteAt(make([]byte, 4096), 0); err == nil {
			err = f.Sync()
		}
		if err == nil {
			t.Error("a read-only device takes writes")
		}
		f.Close()
	}
	check(t, p.Deactivate(1))
	for id := ID(2); id <= 4; id++ {
		check(t, p.CreateSnapshot(id, 1))
		snap, err := p.Activate(id, KindSnapshot, deviceSize, false)
		check(t, err)
		if digest(t, snap) != sealed {
			t.Errorf("snapshot %d differs from its origin", id)
		}
		fill(t, snap, int64(id)*3*mib+4096)
	}
	path, err = p.Activate(1, KindImage, deviceSize, true)
	check(t, err)
	if digest(t, path) != sealed {
		t.Error("the origin changed")
	}
	wantThins(t, p, 1, 2, 3, 4)
}

// Our reader of the metadata against thin_ls, for enough devices that the tree has inner
// nodes.
func TestThinsEqualsThinLs(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	fill(t, path, 3*mib)
	check(t, p.Deactivate(1))
	check(t, p.ctl.Message(cfg.poolUUID(), "set_transaction_id 0 42"))
	const n = 300
	for id := ID(2); id <= n; id++ {
		if id%3 == 0 {
			check(t, p.CreateThin(id*55555%maxID))
		} else {
			check(t, p.CreateSnapshot(id*55555%maxID, 1))
		}
	}
	path, err := p.Activate(2*55555, KindSnapshot, deviceSize, false)
	check(t, err)
	fill(t, path, 5*mib)
	got, err := p.Thins()
	check(t, err)
	var ours strings.Builder
	for _, th := range got {
		fmt.Fprintln(&ours, th.ID, th.MappedBytes/cfg.BlockSize, th.TransactionID, th.CreationTime, th.SnapshotTime)
	}
	check(t, p.message("reserve_metadata_snap"))
	theirs := run(t, "thin_ls", "-m", "--no-headers", "-o", "DEV,MAPPED_BLOCKS,TRANSACTION,CREATE_TIME,SNAP_TIME",
		p.metadata)
	check(t, p.message("release_metadata_snap"))
	var want strings.Builder
	for line := range strings.Lines(theirs) {
		if strings.HasPrefix(strings.TrimSpace(line), "0 ") { // the stamp
			continue
		}
		fmt.Fprintln(&want, strings.Join(strings.Fields(line), " "))
	}
	if len(got) != n || ours.String() != want.String() {
		t.Errorf("%d devices; ours:\n%.600s\nthin_ls:\n%.600s", len(got), ours.String(), want.String())
	}
}

// Only discard before delete gives a loop's file its space back.
func TestDiscardShrinksBackingFile(t *testing.T) {
	p, cfg := newPool(t)
	const size = 40 * mib
	path := newImage(t, p)
	fill(t, path, size)
	if got := allocated(t, cfg.Data); got < size {
		t.Fatalf("backing file has %d bytes, %d were written", got, size)
	}
	m := openFile(t, path) // a reader is no obstacle, but the descriptor must be gone for the removal
	check(t, p.Discard(1))
	check(t, m.Close())
	if got := allocated(t, cfg.Data); got > mib {
		t.Errorf("backing file keeps %d bytes after the discard", got)
	}
	if s, err := p.Status(); err != nil || s.UsedData != 2*minBlockSize { // the stamp
		t.Errorf("pool keeps %d bytes: %v", s.UsedData, err)
	}
	check(t, p.Deactivate(1))
	check(t, p.Delete(1))
	if err := p.Delete(1); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Delete: %v, want ErrNotFound", err)
	}
	wantThins(t, p)
}

// The origin's discard leaves a snapshot whole.
func TestDiscardLeavesSharedBlocks(t *testing.T) {
	p, _ := newPool(t)
	path := newImage(t, p)
	fill(t, path, 4*mib)
	want := digest(t, path)
	check(t, p.Deactivate(1))
	check(t, p.CreateSnapshot(2, 1))
	_, err := p.Activate(1, KindImage, deviceSize, false)
	check(t, err)
	check(t, p.Discard(1))
	check(t, p.Deactivate(1))
	check(t, p.Delete(1))
	snap, err := p.Activate(2, KindSnapshot, deviceSize, false)
	check(t, err)
	if digest(t, snap) != want {
		t.Error("the snapshot changed when its origin was discarded")
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// A full data device fails writers at once, refuses new devices, and lets old ones go.
func TestDataFull(t *testing.T) {
	cfg := newConfig(t, 16*mib, minMetadataSize)
	p := created(t, cfg)
	path := newImage(t, p)
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_SYNC, 0)
	check(t, err)
	buf := []byte(strings.Repeat("full", 16<<10))
	for err = nil; err == nil; _, err = f.Write(buf) {
	}
	f.Close()
	s, serr := p.Status()
	check(t, serr)
	if s.Mode != ModeOutOfDataSpace || s.UsedData != s.TotalData {
		t.Fatalf("after %v: %+v", err, s)
	}
	if err := p.CreateThin(2); !errors.Is(err, ErrNoSpace) {
		t.Errorf("CreateThin: %v, want ErrNoSpace", err)
	}
	if err := p.CreateSnapshot(2, 1); err == nil {
		t.Error("CreateSnapshot of an active origin of a full pool")
	}
	wantThins(t, p, 1)
	check(t, p.Discard(1))
	check(t, p.Deactivate(1))
	check(t, p.Delete(1))
	if s, err := p.Status(); err != nil || s.Mode != ModeReadWrite || s.UsedData != 2*minBlockSize { // the stamp
		t.Errorf("after the delete: %+v %v", s, err)
	}
	check(t, p.CreateThin(2))
}

// Full metadata makes the pool read-only; listing works, changes do not, nothing is
// reported as done that is not.
func TestMetadataFull(t *testing.T) {
	cfg := newConfig(t, 8<<30, minMetadataSize)
	p := created(t, cfg)
	made := exhaustMetadata(t, p)
	for name, do := range map[string]func() error{
		"CreateThin": func() error { return p.CreateThin(maxID) },
		"Delete":     func() error { return p.Delete(1) },
	} {
		if err := do(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	list, err := p.Thins()
	check(t, err)
	if len(list) < made-1 || len(list) > made+1 {
		t.Errorf("%d devices listed, %d made", len(list), made)
	}
	q, err := Open(t.Context(), cfg)
	check(t, err)
	check(t, q.Close())
}

// exhaustMetadata makes thin devices until the metadata is full, and returns how many
// there are.
func exhaustMetadata(t *testing.T, p *Pool) int {
	t.Helper()
	for id := ID(1); id < 5000; id++ {
		if err := p.CreateThin(id); err != nil {
			if !errors.Is(err, ErrReadOnly) {
				t.Fatalf("device %d: %v, want ErrReadOnly", id, err)
			}
			s, err := p.Status()
			check(t, err)
			if s.Mode != ModeReadOnly {
				t.Fatalf("%+v", s)
			}
			return int(id) - 1
		}
	}
	t.Fatal("the metadata does not fill up")
	return 0
}

// EBUSY names who is to blame.
func TestBusyNamesTheHolder(t *testing.T) {
	p, cfg := newPool(t)
	path := newImage(t, p)
	check(t, MakeFilesystem(t.Context(), path, cfg.UUID))
	for _, task := range []string{"open", "mount"} {
		pid, kill := other(t, task, path)
		err := p.Deactivate(1)
		if !errors.Is(err, ErrBusy) || !errors.Is(err, unix.EBUSY) ||
			!strings.Contains(err.Error(), "process "+strconv.Itoa(pid)) {
			t.Errorf("%s: %v, want ErrBusy that names process %d", task, err, pid)
		}
		if task == "mount" {
			if err := p.Discard(1); !errors.Is(err, ErrBusy) {
				t.Errorf("discard of a mounted device: %v, want ErrBusy", err)
			}
		}
		kill()
	}
	dir := t.TempDir()
	run(t, "mount", path, dir)
	if err := p.Deactivate(1); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), strconv.Quote(dir)) {
		t.Errorf("mounted: %v, want ErrBusy that names %s", err, dir)
	}
	run(t, "umount", dir)
	run(t, "dmsetup", "create", "cim-test-on-top", "--table", "0 2048 linear "+path+" 0")
	if err := Detach(cfg); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "cim-test-on-top") {
		t.Errorf("under another device: %v, want ErrBusy that names it", err)
	}
	run(t, "dmsetup", "remove", "cim-test-on-top")
	_ = os.Remove(filepath.Join(dmctl.Dir, "cim-test-on-top"))
	check(t, p.Deactivate(1))
}
