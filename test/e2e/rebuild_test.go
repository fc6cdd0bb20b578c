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

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
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
	h.T.Helper()
	ctx := h.T.Context()
	var err error
	j.images, err = h.Store.Images(ctx)
	h.Check(err)
	j.devices, err = h.Store.Devices(ctx)
	h.Check(err)
	j.snapshots, err = h.Store.Snapshots(ctx)
	h.Check(err)
	for i := range j.images {
		j.images[i].UpdatedAt, j.images[i].Attempt = j.images[i].CreatedAt, 0
		j.images[i].TraceID = "" // lost with the database: a rebuilt image gets a new one
	}
	for i := range j.devices {
		j.devices[i].UpdatedAt = j.images[0].CreatedAt
	}
	for i := range j.snapshots {
		j.snapshots[i].CreatedAt = j.images[0].CreatedAt
	}
	return j
}

// without returns the journal without one image.
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

func (h *host) checkSame(got, want journal) {
	h.T.Helper()
	for what, pair := range map[string][2]any{
		"images": {got.images, want.images}, "devices": {got.devices, want.devices},
		"snapshots": {got.snapshots, want.snapshots},
	} {
		if a, b := mustJSON(pair[0]), mustJSON(pair[1]); a != b {
			h.T.Errorf("%s rebuilt: %s\nbefore: %s", what, a, b)
		}
	}
}

// loseDatabase removes the database, as the loss of a disk does.
func (h *host) loseDatabase() {
	h.T.Helper()
	h.Check(h.Store.Close())
	files, err := filepath.Glob(filepath.Join(h.dir(), "state", "consumer.db*"))
	h.Check(err)
	if len(files) == 0 {
		h.T.Fatal("there is no database to lose")
	}
	for _, f := range files {
		h.Check(os.Remove(f))
	}
}

func (h *host) reopen() {
	h.T.Helper()
	var err error
	h.Store, err = store.OpenExisting(h.T.Context(), filepath.Join(h.dir(), "state", "consumer.db"))
	h.Check(err)
}

// pool opens the machine's pool, for what an operator might do to it.
func (h *host) pool() *devmapper.Pool {
	h.T.Helper()
	pool, err := invariants.OpenPool(h.T.Context(), h.Store)
	h.Check(err)
	h.T.Cleanup(func() { h.Check(pool.Close()) })
	return pool
}

func (h *host) hasThin(pool *devmapper.Pool, id int64) bool {
	h.T.Helper()
	thins, err := pool.Thins()
	h.Check(err)
	return slices.ContainsFunc(thins, func(th devmapper.Thin) bool { return th.ID == devmapper.ID(id) })
}

// writeFile puts a file into a snapshot and returns the mount, still in use.
func (h *host) writeFile(snapshot, text string) *ext4.Mount {
	h.T.Helper()
	m, err := devmapper.MountDetached(snapshot, ext4.MountBuild)
	h.Check(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	h.Check(err)
	defer root.Close()
	h.Check(root.WriteFile("rootfs/etc/hello", []byte(text), 0o644))
	h.Check(m.Sync())
	return m
}

// parseReport reads the output of `recover --json`: the findings by device, and the
// archives of images without a device.
func (h *host) parseReport(out string) (is map[int64]string, archives []string) {
	h.T.Helper()
	var report struct {
		Devices []struct {
			Device int64  `json:"device_id"`
			Is     string `json:"is"`
			Why    string `json:"why"`
		} `json:"devices"`
		Archives []string `json:"unclaimed_archives"`
	}
	h.Check(json.NewDecoder(strings.NewReader(out)).Decode(&report))
	is = map[int64]string{}
	for _, d := range report.Devices {
		is[d.Device] = strings.TrimSpace(d.Is + " " + d.Why)
	}
	return is, report.Archives
}

// A lost database is rebuilt from the pool while its devices are in use: the same
// images and snapshots under the same ids and paths. What cannot be proved is reported
// and left alone. Afterwards the daemon goes on as if nothing had happened.
func TestRebuiltFromThePool(t *testing.T) {
	h := newHost(t)
	h.Start()
	const text = "a text that lies on the device once"
	bodies := map[string][]byte{
		"a": tarballs.RootFS("a", 3), "b": tarballs.RootFS("b", 3),
		"damaged": tarballs.RootFS("d", 3, tarballs.Entry{Name: "var/planted", Body: text, Mode: 0o644}),
		"bare":    tarballs.RootFS("c", 3),
	}
	image := map[string]store.Image{}
	for _, key := range []string{"a", "b", "damaged", "bare"} {
		h.put("images/"+key+".tar", bodies[key])
		image[key] = h.WaitActive("images/" + key + ".tar")
	}
	h.Consumer("snapshot", "images/a.tar")
	h.WaitDrained()
	h.Stop()
	used, err := h.Store.SnapshotsOf(t.Context(), image["a"].ID)
	h.Check(err)
	mount := h.writeFile(used[1].Path, "mine")
	defer mount.Close()

	h.put("images/half.tar", tarballs.RootFS("half", 3))
	h.Start("CIM_CRASH_AT=after:step:unpack:formatted")
	if !h.WaitKilled(time.Minute) {
		t.Fatal("the daemon was not killed: build it with -tags failpoint")
	}
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	half := devices[len(devices)-1].ID
	const foreign = 77
	pool := h.pool()
	h.Check(pool.CreateThin(foreign))
	h.plant(image["damaged"].Tree.Device, text, "A")
	h.Check(os.Remove(image["bare"].Blob.Path))
	h.Check(os.RemoveAll(filepath.Join(h.dir(), "state", "manifests")))

	want := h.journal().without(image["damaged"].ID).without(devices[len(devices)-1].Image)
	for i := range want.images {
		if want.images[i].ID == image["bare"].ID {
			want.images[i].Blob = nil
		}
	}
	damagedSnapshots, err := h.Store.SnapshotsOf(t.Context(), image["damaged"].ID)
	h.Check(err)
	h.loseDatabase()

	if out, code := h.Try("recover"); code != 3 || !strings.Contains(out, "name") {
		t.Errorf("recover under another name: exit code %d, %s", code, out)
	}
	archives := h.checkReports(half, foreign, image["damaged"].Tree.Device, damagedSnapshots[0].Device)
	h.reopen()
	h.checkSame(h.journal(), want)
	found, err := invariants.Look(t.Context(), h.Store, filepath.Join(h.dir(), "state"))
	h.Check(err)
	if list := found.Unfolded(); len(list) > 0 {
		t.Errorf("%q", list)
	}
	h.Check(mount.Close())

	h.Start()
	h.WaitRunning()
	h.checkWorksOn(image, bodies, used)
	h.put("images/new.tar", tarballs.RootFS("new", 3))
	if img := h.WaitActive("images/new.tar"); img.Tree.Device <= foreign || img.ID <= image["bare"].ID {
		t.Errorf("a new image has the id %d and the device %d", img.ID, img.Tree.Device)
	}
	h.WaitActive("images/half.tar") // its message was not deleted
	h.Consumer("backfill")
	if img := h.WaitActive("images/damaged.tar"); img.Tree.Device <= foreign {
		t.Errorf("the damaged image came back on device %d", img.Tree.Device)
	}
	h.WaitDrained()
	h.unclaimed["thin_device"], h.unclaimed["file"] = 4, len(archives)
	h.Stop()
	h.Consumer("verify", "--all")
	for _, lost := range archives {
		h.Check(os.Remove(lost))
	}
	for _, id := range []int64{half, foreign, image["damaged"].Tree.Device, damagedSnapshots[0].Device} {
		if !h.hasThin(pool, id) {
			t.Errorf("device %d is gone", id)
		}
		h.Check(pool.Deactivate(devmapper.ID(id)))
		h.Check(pool.Delete(devmapper.ID(id)))
	}
	h.Look()
}

// checkReports runs recover, first dry: both runs must report the same, and only the
// second may change anything.
func (h *host) checkReports(half, foreign, damaged, damagedSnapshot int64) (archives []string) {
	h.T.Helper()
	name := poolName(h.T)
	database := filepath.Join(h.dir(), "state", "consumer.db")
	reports := map[bool]map[int64]string{}
	for _, dry := range []bool{true, false} {
		args := []string{"recover", "--json", "--name", name}
		if dry {
			args = append(args, "--dry-run")
		}
		out, code := h.Try(args...)
		if code != 7 {
			h.T.Fatalf("%v: exit code %d, want 7: %s", args, code, out)
		}
		reports[dry], archives = h.parseReport(out)
		if _, err := os.Stat(database); dry != errors.Is(err, os.ErrNotExist) {
			h.T.Errorf("after %v: %v", args, err)
		}
	}
	if a, b := mustJSON(reports[true]), mustJSON(reports[false]); a != b {
		h.T.Errorf("dry: %s\nnot:  %s", a, b)
	}
	for id, why := range map[int64]string{
		half:    "no snapshot was ever taken of it",
		foreign: "no snapshot was ever taken of it", damaged: "its tree is", damagedSnapshot: "which is not proven",
	} {
		if !strings.HasPrefix(reports[false][id], "unproven") || !strings.Contains(reports[false][id], why) {
			h.T.Errorf("device %d: %q, want unproven because %s", id, reports[false][id], why)
		}
		delete(reports[false], id)
	}
	if s := mustJSON(reports[false]); strings.Contains(s, "unproven") {
		h.T.Errorf("also not proven: %s", s)
	}
	before, err := os.ReadFile(database)
	h.Check(err)
	out, code := h.Try("recover", "--name", name)
	after, err := os.ReadFile(database)
	h.Check(err)
	if code != 1 || !strings.Contains(out, "move "+database) || !bytes.Equal(before, after) {
		h.T.Errorf("recover over a database: exit code %d, changed: %t, %s", code, !bytes.Equal(before, after), out)
	}
	return archives
}

// checkWorksOn checks that the daemon has on a rebuilt database what it had before, and
// that another event of an object changes nothing.
func (h *host) checkWorksOn(image map[string]store.Image, bodies map[string][]byte, snapshots []store.Snapshot) {
	h.T.Helper()
	for _, key := range []string{"a", "b", "bare"} {
		if out := h.Consumer("verify", "images/"+key+".tar"); !strings.Contains(out, "as sealed") ||
			!strings.Contains(out, "agrees") {
			h.T.Errorf("verify: %s", out)
		}
	}
	for i, want := range []string{"a", "mine"} {
		if got := h.readHello(snapshots[i].Path); got != want {
			h.T.Errorf("%s reads %q, want %q", snapshots[i].Path, got, want)
		}
	}
	for _, key := range []string{"a", "b"} {
		events := h.events(image[key].ID)
		h.put("images/"+key+".tar", bodies[key])
		h.WaitDrained()
		if again := h.events(image[key].ID); again != events {
			h.T.Errorf("%s: told again, the journal has %d events instead of %d", key, again, events)
		}
	}
	h.waitLogged("handed off: nothing to do", 2)
	h.put("images/bare.tar", bodies["bare"]) // its archive is fetched again, its device is not made again
	h.WaitDrained()
	if img := h.WaitActive("images/bare.tar"); img.Blob == nil || img.Tree.Device != image["bare"].Tree.Device {
		h.T.Errorf("the image whose archive was lost: %+v", img)
	}
}

// After a reboot, when no device is active, the pool's metadata tell whose pool it is.
// Killed anywhere, recover is run again.
func TestRebuiltAfterReboot(t *testing.T) {
	h := newHost(t)
	h.Start()
	for _, key := range []string{"images/a.tar", "images/b.tar", "images/c.tar"} {
		h.put(key, tarballs.RootFS(key, 3))
		h.WaitActive(key)
	}
	h.WaitDrained()
	h.Stop()
	want := h.journal()
	row, err := h.Store.Pool(t.Context())
	h.Check(err)
	h.Consumer("pool", "detach")
	h.loseDatabase()

	wal := filepath.Join(h.dir(), "state", "consumer.db-wal")
	h.Check(os.WriteFile(wal, []byte("of the lost database"), 0o600))
	args := []string{"recover", "--name", row.Name}
	if out, code := h.Try(args...); code != 1 || !strings.Contains(out, wal) {
		t.Errorf("beside a write-ahead log: exit code %d, %s", code, out)
	}
	h.Check(os.Remove(wal))
	if out, code := h.Try(append(args, "--dry-run")...); code != 0 ||
		!strings.Contains(out, "3 images, 3 snapshots; nothing was written") {
		t.Errorf("dry: exit code %d, %s", code, out)
	}
	if _, err := os.Stat("/dev/mapper/cim-" + row.Name + "-pool"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dry run left the pool active: %v", err)
	}
	h.Check(os.WriteFile(filepath.Join(h.dir(), "state", "manifests", "1.part"), nil, 0o600)) // as of a kill
	h.killWhileScanning(args)
	for _, at := range []string{"before:rebuilt::", "after:rebuilt::"} {
		if out, code := h.TryWith([]string{"CIM_CRASH_AT=" + at}, args...); code != -1 {
			t.Fatalf("%s: exit code %d: not killed: build it with -tags failpoint: %s", at, code, out)
		}
		if _, err := os.Stat(filepath.Join(h.dir(), "state", "consumer.db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: there is a database that is not complete: %v", at, err)
		}
	}
	if out := h.Consumer(args...); !strings.Contains(out, "3 images, 3 snapshots") {
		t.Errorf("recover: %s", out)
	}
	h.reopen()
	h.checkSame(h.journal(), want)
	if again, err := h.Store.Pool(t.Context()); err != nil || again.UUID != row.UUID ||
		again.BlockSize != row.BlockSize || again.Data != row.Data {
		t.Errorf("pool %+v, %v, want %+v", again, err, row)
	}
	h.Look()
	h.Start()
	h.WaitRunning()
	h.Stop()
	h.Look()
	if left, err := filepath.Glob(filepath.Join(h.dir(), "state", "consumer.db.*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// killWhileScanning kills recover after it has read the first device.
func (h *host) killWhileScanning(args []string) {
	h.T.Helper()
	log := filepath.Join(h.dir(), "recover.log")
	f, err := os.Create(log)
	h.Check(err)
	defer f.Close()
	cmd := exec.Command(h.Program(), append(args, "--log-level", "info")...)
	cmd.Env, cmd.Stderr = h.Environment(), f
	h.Check(cmd.Start())
	h.WaitFor("recover reads devices", func() bool {
		text, err := os.ReadFile(log)
		h.Check(err)
		return bytes.Contains(text, []byte("thin device read"))
	})
	h.Check(cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		h.T.Error("recover was faster than the kill")
	}
}

// Verify compares the seal record with the journal. An image without a record, as earlier
// versions made them, is valid. Nothing is rebuilt from a record of another pool.
func TestSealRecord(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	d := img.Tree.Device
	h.editSeal(d, func(s *store.SealRecord) { s.Key = "images/other.tar" })
	if out, code := h.Try("verify", "images/a.tar"); code != 6 ||
		!strings.Contains(out, "seal record: key is images/other.tar, should be images/a.tar") {
		t.Errorf("another key: exit code %d, %s", code, out)
	}
	h.editSeal(d, func(s *store.SealRecord) { s.Key = "images/a.tar" })
	if out := h.Consumer("verify", "images/a.tar"); !strings.Contains(out, "agrees") {
		t.Errorf("the key as it was: %s", out)
	}
	h.editSeal(d, func(s *store.SealRecord) { s.PoolUUID = "another" })
	h.loseDatabase()
	out, code := h.Try("recover", "--dry-run", "--json", "--name", poolName(t))
	if found, _ := h.parseReport(out); code != 7 || !strings.Contains(found[d], "sealed in the pool another") {
		t.Errorf("sealed in another pool: exit code %d, %s", code, out)
	}
	if _, code := h.Try("recover", "--name", poolName(t)); code != 7 {
		t.Errorf("recover: exit code %d, want 7", code)
	}
	h.reopen()
	if images, err := h.Store.Images(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("rebuilt: %+v, %v", images, err)
	}
}

// A device without a seal record is valid, and verify says so.
func TestNoSealRecord(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.editSeal(img.Tree.Device, nil)
	if out := h.Consumer("verify", "images/a.tar"); !strings.Contains(out, "as sealed") ||
		!strings.Contains(out, "none") {
		t.Errorf("verify: %s", out)
	}
	h.Look()
}

// editSeal changes the seal record of an image's device, or with nil removes it.
func (h *host) editSeal(device int64, change func(*store.SealRecord)) {
	h.T.Helper()
	pool := h.pool()
	path, err := pool.Activate(devmapper.ID(device), devmapper.KindImage, 256<<20, false)
	h.Check(err)
	m, err := devmapper.MountDetached(path, ext4.MountBuild)
	h.Check(err)
	record, err := extract.ReadSealRecord(m.Root())
	h.Check(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	h.Check(err)
	h.Check(root.Remove("seal.json"))
	if change != nil {
		seal, err := store.ParseSealRecord(record)
		h.Check(err)
		change(&seal)
		record, err = seal.Encode()
		h.Check(err)
		h.Check(extract.WriteSealRecord(m.Root(), record))
	}
	h.Check(errors.Join(m.Sync(), root.Close(), m.Close(), pool.Deactivate(devmapper.ID(device))))
}
