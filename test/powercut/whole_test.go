package powercut

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
)

// afterCut looks at the state directory as the power cut left it, through a copy of the journal: what was promised must be there before
// anything is recovered, and without any message. It tells whether the pool was there.
func (h *host) afterCut(marks []string) (pool bool) {
	h.t.Helper()
	dir := h.t.TempDir()
	for _, name := range []string{"consumer.db", "consumer.db-wal"} {
		text, err := os.ReadFile(filepath.Join(h.stateDir(), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.t.Fatal(err)
		}
	}
	s, err := store.OpenExisting(h.t.Context(), filepath.Join(dir, "consumer.db"))
	if err == nil {
		defer s.Close()
		var row store.Pool
		row, err = s.Pool(h.t.Context())
		pool = err == nil && row.State == "ready"
	}
	switch promised := slices.Contains(marks, markPool); {
	case promised && !pool:
		h.t.Fatalf("the pool was created, and the journal does not know it: %v", err)
	case !pool:
		return false
	}
	h.integrity(filepath.Join(dir, "consumer.db"))
	list, err := s.Images(h.t.Context())
	check(h.t, err)
	h.deletedHaveImages(list, marks)
	h.resultsAreThere(list)
	if slices.Contains(marks, markFurther) {
		first := byKeyIn(list, images()[0].key)
		if rows, err := s.SnapshotsOf(h.t.Context(), first.ID); err != nil || len(rows) < 2 {
			h.t.Errorf("the further snapshot was reported, and is not in the journal: %+v, %v", rows, err)
		}
	}
	return true
}

func byKeyIn(list []store.Image, key string) store.Image {
	for _, img := range list {
		if img.Key == key {
			return img
		}
	}
	return store.Image{}
}

// deletedHaveImages is the promise to the queue: a message is deleted only when its image is terminal, on the disk.
func (h *host) deletedHaveImages(list []store.Image, marks []string) {
	h.t.Helper()
	for _, m := range marks {
		key, ok := strings.CutPrefix(m, markDeleted)
		if !ok {
			continue
		}
		if img := byKeyIn(list, key); img.State != byKey(key).ends {
			h.t.Errorf("the message of %s was deleted, and the journal has: %q %+v", key, img.Key, img.Progress)
		}
	}
}

// resultsAreThere checks the files that the journal's events speak of.
func (h *host) resultsAreThere(list []store.Image) {
	h.t.Helper()
	for _, img := range list {
		if img.State.Refused() {
			continue
		}
		if img.Blob != nil {
			if sum := sumOf(img.Blob.Path); sum != img.Blob.SHA256 {
				h.t.Errorf("image %d is said to be downloaded; its archive: %s", img.ID, sum)
			}
		}
		if img.Tree != nil {
			digest := strings.TrimPrefix(img.Tree.Digest, "sha256:")
			if sum := sumOf(filepath.Join(h.stateDir(), "manifests", digest)); sum != digest {
				h.t.Errorf("image %d is said to be sealed; its manifest: %s", img.ID, sum)
			}
		}
	}
}

// sumOf is a file's SHA-256, or why it has none.
func sumOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// integrity asks SQLite.
func (h *host) integrity(path string) {
	h.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	check(h.t, err)
	defer db.Close()
	for _, pragma := range []string{"integrity_check", "foreign_key_check"} {
		rows, err := db.QueryContext(h.t.Context(), "PRAGMA "+pragma)
		check(h.t, err)
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil || text != "ok" {
				h.t.Errorf("PRAGMA %s of %s: %s %v", pragma, path, text, err)
			}
		}
		check(h.t, errors.Join(rows.Err(), rows.Close()))
	}
}

// whole checks, while no daemon runs, that journal, pool and state directory agree, that every image is what was uploaded, and that
// nothing is left over.
func (h *host) whole() {
	h.t.Helper()
	row, err := h.store.Pool(h.t.Context())
	check(h.t, err)
	pool, err := devmapper.Open(h.t.Context(), devmapper.Config{Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata, BlockSize: row.BlockSize})
	check(h.t, err)
	defer pool.Close()
	if s, err := pool.Status(); err != nil || s.Mode != devmapper.ModeReadWrite || s.NeedsCheck {
		h.t.Errorf("pool: %+v %v", s, err)
	}
	h.wholePool(pool)
	list, err := h.store.Images(h.t.Context())
	check(h.t, err)
	h.wholeJournal(list)
	h.resultsAreThere(list)
	h.wholeFiles(list)
	for _, img := range list {
		h.wholeSnapshots(img)
	}
	if out := h.consumer("verify", "--all"); strings.Count(out, "as sealed") != active(list) {
		h.t.Errorf("verify --all, %d images are active:\n%s", active(list), out)
	}
	h.integrity(filepath.Join(h.stateDir(), "consumer.db"))
}

func active(list []store.Image) (n int) {
	for _, img := range list {
		if img.State == store.Active {
			n++
		}
	}
	return n
}

// wholePool compares the pool's devices with the journal's, and checks the images' file systems.
func (h *host) wholePool(pool *devmapper.Pool) {
	h.t.Helper()
	devices, err := h.store.Devices(h.t.Context())
	check(h.t, err)
	thins, err := pool.Thins()
	check(h.t, err)
	found, err := pool.Active()
	check(h.t, err)
	var wantThins, wantActive, haveThins, haveActive []string
	for _, d := range devices {
		wantThins = append(wantThins, fmt.Sprint(d.ID))
		if d.State != store.Ready {
			h.t.Errorf("device %d is %s", d.ID, d.State)
		}
		if d.Kind == store.SnapshotDevice {
			wantActive = append(wantActive, fmt.Sprint(d.ID))
			continue
		}
		path, err := pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, true)
		check(h.t, err)
		disks.Run(h.t, "e2fsck", "-fn", path)
		check(h.t, pool.Deactivate(devmapper.ID(d.ID)))
	}
	for _, th := range thins {
		haveThins = append(haveThins, fmt.Sprint(th.ID))
	}
	for _, d := range found {
		haveActive = append(haveActive, fmt.Sprint(d.ID))
		if d.HalfCreated || d.Suspended {
			h.t.Errorf("active device %+v", d)
		}
	}
	for _, pair := range [][2][]string{{wantThins, haveThins}, {wantActive, haveActive}} {
		slices.Sort(pair[0])
		slices.Sort(pair[1])
		if !slices.Equal(pair[0], pair[1]) {
			h.t.Errorf("devices: the journal has %v, the pool %v", pair[0], pair[1])
		}
	}
}

// wholeJournal checks that every image's row is the fold of its events.
func (h *host) wholeJournal(list []store.Image) {
	h.t.Helper()
	for _, img := range list {
		events, err := h.store.History(h.t.Context(), img.ID)
		check(h.t, err)
		p, err := store.Fold(events)
		check(h.t, err)
		fold, err := json.Marshal(p)
		check(h.t, err)
		row, err := json.Marshal(img.Progress)
		check(h.t, err)
		if string(fold) != string(row) {
			h.t.Errorf("image %d: fold %s, row %s", img.ID, fold, row)
		}
	}
}

// wholeFiles checks that the state directory holds the archives and manifests of the active images, and nothing else.
func (h *host) wholeFiles(list []store.Image) {
	h.t.Helper()
	claimed := map[string]bool{}
	for _, img := range list {
		if img.State == store.Active {
			claimed[img.Blob.Path] = true
			claimed[filepath.Join(h.stateDir(), "manifests", strings.TrimPrefix(img.Tree.Digest, "sha256:"))] = true
		}
	}
	for _, dir := range []string{"blobs", "manifests"} {
		files, err := filepath.Glob(filepath.Join(h.stateDir(), dir, "*"))
		check(h.t, err)
		for _, f := range files {
			if !claimed[f] {
				h.t.Errorf("file %s belongs to no image", f)
			}
		}
	}
}

// wholeSnapshots compares what an image's snapshots hold with what was uploaded.
func (h *host) wholeSnapshots(img store.Image) {
	h.t.Helper()
	rows, err := h.store.SnapshotsOf(h.t.Context(), img.ID)
	check(h.t, err)
	if img.State == store.Active && len(rows) == 0 {
		h.t.Errorf("%s is active and has no snapshot", img.Key)
	}
	for _, sn := range rows {
		m, err := devmapper.MountDetached(sn.Path, devmapper.MountInspect)
		check(h.t, err)
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()))
		check(h.t, err)
		for path, want := range byKey(img.Key).files {
			if got, err := root.ReadFile(path); err != nil || string(got) != want {
				h.t.Errorf("%s of %s: %d bytes, not the %d that were uploaded: %v", path, sn.Path, len(got), len(want), err)
			}
		}
		check(h.t, errors.Join(root.Close(), m.Close()))
	}
}
