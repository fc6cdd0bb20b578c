package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// journal is what must be the same in a rebuilt database.
type journal struct {
	images    []store.Image
	devices   []store.Device
	snapshots []store.Snapshot
}

// journal reads the database; times and attempts are not kept.
func (h *host) journal() (j journal) {
	h.t.Helper()
	ctx := h.t.Context()
	var err error
	j.images, err = h.store.Images(ctx)
	h.check(err)
	j.devices, err = h.store.Devices(ctx)
	h.check(err)
	j.snapshots, err = h.store.Snapshots(ctx)
	h.check(err)
	for i := range j.images {
		j.images[i].UpdatedAt, j.images[i].Attempt = j.images[i].CreatedAt, 0
	}
	for i := range j.devices {
		j.devices[i].UpdatedAt = j.images[0].CreatedAt
	}
	for i := range j.snapshots {
		j.snapshots[i].CreatedAt = j.images[0].CreatedAt
	}
	return j
}

// without leaves an image out.
func (j journal) without(image int64) (k journal) {
	for _, img := range j.images {
		if img.ID != image {
			k.images = append(k.images, img)
		}
	}
	for _, d := range j.devices {
		if d.Image != image {
			k.devices = append(k.devices, d)
		}
	}
	for _, sn := range j.snapshots {
		if sn.Image != image {
			k.snapshots = append(k.snapshots, sn)
		}
	}
	return k
}

func (h *host) same(got, want journal) {
	h.t.Helper()
	for what, pair := range map[string][2]any{
		"images": {got.images, want.images}, "devices": {got.devices, want.devices}, "snapshots": {got.snapshots, want.snapshots},
	} {
		if a, b := mustJSON(pair[0]), mustJSON(pair[1]); a != b {
			h.t.Errorf("%s rebuilt: %s\nbefore: %s", what, a, b)
		}
	}
}

// loseDatabase takes the database away, as a lost disk does.
func (h *host) loseDatabase() {
	h.t.Helper()
	h.check(h.store.Close())
	files, err := filepath.Glob(filepath.Join(h.dir, "state", "consumer.db*"))
	h.check(err)
	if len(files) == 0 {
		h.t.Fatal("there is no database to lose")
	}
	for _, f := range files {
		h.check(os.Remove(f))
	}
}

func (h *host) reopen() {
	h.t.Helper()
	var err error
	h.store, err = store.OpenExisting(h.t.Context(), filepath.Join(h.dir, "state", "consumer.db"))
	h.check(err)
}

// pool opens the machine's pool, for what an operator might do to it.
func (h *host) pool() *devmapper.Pool {
	h.t.Helper()
	pool, err := invariants.OpenPool(h.t.Context(), h.store)
	h.check(err)
	h.t.Cleanup(func() { h.check(pool.Close()) })
	return pool
}

func (h *host) hasThin(pool *devmapper.Pool, id int64) bool {
	h.t.Helper()
	thins, err := pool.Thins()
	h.check(err)
	return slices.ContainsFunc(thins, func(th devmapper.Thin) bool { return th.ID == devmapper.ID(id) })
}

// write puts a file into a snapshot and returns the mount, still in use.
func (h *host) write(snapshot, text string) *devmapper.Mount {
	h.t.Helper()
	m, err := devmapper.MountDetached(snapshot, devmapper.MountBuild)
	h.check(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	h.check(err)
	defer root.Close()
	h.check(root.WriteFile("rootfs/etc/hello", []byte(text), 0o644))
	h.check(m.Sync())
	return m
}

// found is what `recover --json` says, by device; and the archives of images that are not among them.
func (h *host) found(out string) (is map[int64]string, archives []string) {
	h.t.Helper()
	var report struct {
		Devices []struct {
			Device int64  `json:"device_id"`
			Is     string `json:"is"`
			Why    string `json:"why"`
		} `json:"devices"`
		Archives []string `json:"unclaimed_archives"`
	}
	h.check(json.NewDecoder(strings.NewReader(out)).Decode(&report))
	is = map[int64]string{}
	for _, d := range report.Devices {
		is[d.Device] = strings.TrimSpace(d.Is + " " + d.Why)
	}
	return is, report.Archives
}

// A lost database is made anew from the pool while its devices are in use: the same images and snapshots under the same ids and paths.
// What cannot be proved is reported and left alone. Afterwards the daemon goes on as if nothing had happened.
func TestRebuiltFromThePool(t *testing.T) {
	h := newHost(t)
	h.start()
	const text = "a text that lies on the device once"
	bodies := map[string][]byte{
		"a": rootfs("a", 3), "b": rootfs("b", 3), "damaged": rootfs("d", 3, entry{name: "var/planted", body: text, mode: 0o644}), "bare": rootfs("c", 3),
	}
	image := map[string]store.Image{}
	for _, key := range []string{"a", "b", "damaged", "bare"} {
		h.put("images/"+key+".tar", bodies[key])
		image[key] = h.active("images/" + key + ".tar")
	}
	h.consumer("snapshot", "images/a.tar")
	h.drained()
	h.stop()
	used, err := h.store.SnapshotsOf(t.Context(), image["a"].ID)
	h.check(err)
	mount := h.write(used[1].Path, "mine")
	defer mount.Close()

	h.put("images/half.tar", rootfs("half", 3))
	h.start("CIM_CRASH_AT=after:step:unpack:formatted")
	if !h.crashed(time.Minute) {
		t.Fatal("the daemon was not killed: build it with -tags failpoint")
	}
	devices, err := h.store.Devices(t.Context())
	h.check(err)
	half := devices[len(devices)-1].ID
	const foreign = 77
	pool := h.pool()
	h.check(pool.CreateThin(foreign))
	h.plant(image["damaged"].Tree.Device, text, "A")
	h.check(os.Remove(image["bare"].Blob.Path))
	h.check(os.RemoveAll(filepath.Join(h.dir, "state", "manifests")))

	want := h.journal().without(image["damaged"].ID).without(devices[len(devices)-1].Image)
	for i := range want.images {
		if want.images[i].ID == image["bare"].ID {
			want.images[i].Blob = nil
		}
	}
	damagedSnapshots, err := h.store.SnapshotsOf(t.Context(), image["damaged"].ID)
	h.check(err)
	h.loseDatabase()

	if out, code := h.try("recover"); code != 3 || !strings.Contains(out, "name") {
		t.Errorf("recover under another name: exit code %d, %s", code, out)
	}
	archives := h.recoverReports(half, foreign, image["damaged"].Tree.Device, damagedSnapshots[0].Device)
	h.reopen()
	h.same(h.journal(), want)
	found, err := invariants.Look(t.Context(), h.store, filepath.Join(h.dir, "state"))
	h.check(err)
	if list := found.Unfolded(); len(list) > 0 {
		t.Errorf("%q", list)
	}
	h.check(mount.Close())

	h.start()
	h.running()
	h.goesOn(image, bodies, used)
	h.put("images/new.tar", rootfs("new", 3))
	if img := h.active("images/new.tar"); img.Tree.Device <= foreign || img.ID <= image["bare"].ID {
		t.Errorf("a new image has the id %d and the device %d", img.ID, img.Tree.Device)
	}
	h.active("images/half.tar") // its message was not deleted
	h.consumer("backfill")
	if img := h.active("images/damaged.tar"); img.Tree.Device <= foreign {
		t.Errorf("the damaged image came back on device %d", img.Tree.Device)
	}
	h.drained()
	h.unclaimed["thin_device"], h.unclaimed["file"] = 4, len(archives)
	h.stop()
	h.consumer("verify", "--all")
	for _, lost := range archives {
		h.check(os.Remove(lost))
	}
	for _, id := range []int64{half, foreign, image["damaged"].Tree.Device, damagedSnapshots[0].Device} {
		if !h.hasThin(pool, id) {
			t.Errorf("device %d is gone", id)
		}
		h.check(pool.Deactivate(devmapper.ID(id)))
		h.check(pool.Delete(devmapper.ID(id)))
	}
	h.whole()
}

// recoverReports runs recover, dry and then really: both say the same, and only the second changes anything.
func (h *host) recoverReports(half, foreign, damaged, damagedSnapshot int64) (archives []string) {
	h.t.Helper()
	name := poolName(h.t)
	database := filepath.Join(h.dir, "state", "consumer.db")
	reports := map[bool]map[int64]string{}
	for _, dry := range []bool{true, false} {
		args := []string{"recover", "--json", "--name", name}
		if dry {
			args = append(args, "--dry-run")
		}
		out, code := h.try(args...)
		if code != 7 {
			h.t.Fatalf("%v: exit code %d, want 7: %s", args, code, out)
		}
		reports[dry], archives = h.found(out)
		if _, err := os.Stat(database); dry != errors.Is(err, os.ErrNotExist) {
			h.t.Errorf("after %v: %v", args, err)
		}
	}
	if a, b := mustJSON(reports[true]), mustJSON(reports[false]); a != b {
		h.t.Errorf("dry: %s\nnot:  %s", a, b)
	}
	for id, why := range map[int64]string{half: "no seal record", foreign: "no ext4", damaged: "its tree is", damagedSnapshot: "which is not proven"} {
		if !strings.HasPrefix(reports[false][id], "unproven") || !strings.Contains(reports[false][id], why) {
			h.t.Errorf("device %d: %q, want unproven because %s", id, reports[false][id], why)
		}
		delete(reports[false], id)
	}
	if s := mustJSON(reports[false]); strings.Contains(s, "unproven") {
		h.t.Errorf("unproven, too: %s", s)
	}
	before, err := os.ReadFile(database)
	h.check(err)
	out, code := h.try("recover", "--name", name)
	after, err := os.ReadFile(database)
	h.check(err)
	if code != 1 || !strings.Contains(out, "move "+database) || !bytes.Equal(before, after) {
		h.t.Errorf("recover over a database: exit code %d, changed: %t, %s", code, !bytes.Equal(before, after), out)
	}
	return archives
}

// goesOn checks that the daemon on a rebuilt database has what it had, and that being told again of an object changes nothing.
func (h *host) goesOn(image map[string]store.Image, bodies map[string][]byte, snapshots []store.Snapshot) {
	h.t.Helper()
	for _, key := range []string{"a", "b", "bare"} {
		if out := h.consumer("verify", "images/"+key+".tar"); !strings.Contains(out, "as sealed") || !strings.Contains(out, "agrees") {
			h.t.Errorf("verify: %s", out)
		}
	}
	for i, want := range []string{"a", "mine"} {
		if got := h.hello(snapshots[i].Path); got != want {
			h.t.Errorf("%s reads %q, want %q", snapshots[i].Path, got, want)
		}
	}
	for _, key := range []string{"a", "b"} {
		events := h.events(image[key].ID)
		h.put("images/"+key+".tar", bodies[key])
		h.drained()
		if again := h.events(image[key].ID); again != events {
			h.t.Errorf("%s: told again, the journal has %d events instead of %d", key, again, events)
		}
	}
	h.logged("handed off: nothing to do", 2)
	h.put("images/bare.tar", bodies["bare"]) // its archive is fetched again, its device is not made again
	h.drained()
	if img := h.active("images/bare.tar"); img.Blob == nil || img.Tree.Device != image["bare"].Tree.Device {
		h.t.Errorf("the image whose archive was lost: %+v", img)
	}
}

// After a reboot, when no device is active, the pool's metadata tell whose pool it is. Killed anywhere, recover is run again.
func TestRebuiltAfterReboot(t *testing.T) {
	h := newHost(t)
	h.start()
	for _, key := range []string{"images/a.tar", "images/b.tar", "images/c.tar"} {
		h.put(key, rootfs(key, 3))
		h.active(key)
	}
	h.drained()
	h.stop()
	want := h.journal()
	row, err := h.store.Pool(t.Context())
	h.check(err)
	h.consumer("pool", "detach")
	h.loseDatabase()

	wal := filepath.Join(h.dir, "state", "consumer.db-wal")
	h.check(os.WriteFile(wal, []byte("of the lost database"), 0o600))
	args := []string{"recover", "--name", row.Name}
	if out, code := h.try(args...); code != 1 || !strings.Contains(out, wal) {
		t.Errorf("beside a write-ahead log: exit code %d, %s", code, out)
	}
	h.check(os.Remove(wal))
	if out, code := h.try(append(args, "--dry-run")...); code != 0 || !strings.Contains(out, "3 images, 3 snapshots; nothing was written") {
		t.Errorf("dry: exit code %d, %s", code, out)
	}
	if _, err := os.Stat("/dev/mapper/cim-" + row.Name + "-pool"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dry run left the pool active: %v", err)
	}
	h.killInSurvey(args)
	for _, at := range []string{"before:rebuilt::", "after:rebuilt::"} {
		if out, code := h.tryWith("CIM_CRASH_AT="+at, args...); code != -1 {
			t.Fatalf("%s: exit code %d: not killed: build it with -tags failpoint: %s", at, code, out)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "state", "consumer.db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: there is a database that is not complete: %v", at, err)
		}
	}
	if out := h.consumer(args...); !strings.Contains(out, "3 images, 3 snapshots") {
		t.Errorf("recover: %s", out)
	}
	h.reopen()
	h.same(h.journal(), want)
	if again, err := h.store.Pool(t.Context()); err != nil || again.UUID != row.UUID || again.BlockSize != row.BlockSize || again.Data != row.Data {
		t.Errorf("pool %+v, %v, want %+v", again, err, row)
	}
	h.whole()
	h.start()
	h.running()
	h.stop()
	h.whole()
	if left, err := filepath.Glob(filepath.Join(h.dir, "state", "consumer.db.*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// tryWith is try with one more setting.
func (h *host) tryWith(env string, args ...string) (string, int) {
	h.t.Helper()
	more := *h
	more.env = append(slices.Clone(h.env), env)
	return more.try(args...)
}

// killInSurvey kills recover when it has read the first device.
func (h *host) killInSurvey(args []string) {
	h.t.Helper()
	log := filepath.Join(h.dir, "recover.log")
	f, err := os.Create(log)
	h.check(err)
	defer f.Close()
	cmd := exec.Command(program(h.t), args...)
	cmd.Env, cmd.Stderr = h.env, f
	h.check(cmd.Start())
	h.eventually("recover reads devices", func() bool {
		text, err := os.ReadFile(log)
		h.check(err)
		return bytes.Contains(text, []byte("thin device read"))
	})
	h.check(cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		h.t.Error("recover was faster than the kill")
	}
}

// Verify compares the seal record with the journal; an image without one, as earlier versions made them, is what it is. A record of
// another pool is none to rebuild from.
func TestSealRecord(t *testing.T) {
	h := newHost(t)
	h.start()
	h.put("images/a.tar", rootfs("hello", 3))
	img := h.active("images/a.tar")
	h.drained()
	h.stop()
	d := img.Tree.Device
	h.reseal(d, func(s *store.Seal) { s.Key = "images/other.tar" })
	if out, code := h.try("verify", "images/a.tar"); code != 6 || !strings.Contains(out, "seal record: key is images/other.tar, should be images/a.tar") {
		t.Errorf("another key: exit code %d, %s", code, out)
	}
	h.reseal(d, func(s *store.Seal) { s.Key = "images/a.tar" })
	if out := h.consumer("verify", "images/a.tar"); !strings.Contains(out, "agrees") {
		t.Errorf("the key as it was: %s", out)
	}
	h.reseal(d, func(s *store.Seal) { s.PoolUUID = "another" })
	h.loseDatabase()
	out, code := h.try("recover", "--dry-run", "--json", "--name", poolName(t))
	if found, _ := h.found(out); code != 7 || !strings.Contains(found[d], "sealed in the pool another") {
		t.Errorf("sealed in another pool: exit code %d, %s", code, out)
	}
	if _, code := h.try("recover", "--name", poolName(t)); code != 7 {
		t.Errorf("recover: exit code %d, want 7", code)
	}
	h.reopen()
	if images, err := h.store.Images(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("rebuilt: %+v, %v", images, err)
	}
}

// A device without a seal record is valid, and verify says so.
func TestNoSealRecord(t *testing.T) {
	h := newHost(t)
	h.start()
	h.put("images/a.tar", rootfs("hello", 3))
	img := h.active("images/a.tar")
	h.drained()
	h.stop()
	h.reseal(img.Tree.Device, nil)
	if out := h.consumer("verify", "images/a.tar"); !strings.Contains(out, "as sealed") || !strings.Contains(out, "none") {
		t.Errorf("verify: %s", out)
	}
	h.whole()
}

// reseal changes the seal record of an image's device, or with nil removes it.
func (h *host) reseal(device int64, change func(*store.Seal)) {
	h.t.Helper()
	pool := h.pool()
	path, err := pool.Activate(devmapper.ID(device), devmapper.KindImage, 256<<20, false)
	h.check(err)
	m, err := devmapper.MountDetached(path, devmapper.MountBuild)
	h.check(err)
	record, err := archive.ReadSeal(m.Root())
	h.check(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	h.check(err)
	h.check(root.Remove("seal.json"))
	if change != nil {
		seal, err := store.ParseSeal(record)
		h.check(err)
		change(&seal)
		record, err = seal.Encode()
		h.check(err)
		h.check(archive.WriteSeal(m.Root(), record))
	}
	h.check(errors.Join(m.Sync(), root.Close(), m.Close(), pool.Deactivate(devmapper.ID(device))))
}
