package powercut

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	"imagemanager.internal/test/invariants"
)

// checkPromises looks at the state directory as the power cut left it, through a copy of
// the journal: what was promised must be there before anything is recovered, and without
// any message. It reports whether the pool was there.
func (h *host) checkPromises(marks []string) (pool bool) {
	h.T.Helper()
	dir := h.T.TempDir()
	for _, name := range []string{"consumer.db", "consumer.db-wal"} {
		text, err := os.ReadFile(filepath.Join(h.State, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.T.Fatal(err)
		}
	}
	s, err := store.OpenExisting(h.T.Context(), filepath.Join(dir, "consumer.db"))
	if err == nil {
		defer s.Close()
		var row store.Pool
		row, err = s.Pool(h.T.Context())
		pool = err == nil && row.State == "ready"
	}
	switch promised := slices.Contains(marks, markPool); {
	case promised && !pool:
		h.T.Fatalf("the pool was created, and the journal does not know it: %v", err)
	case !pool:
		return false
	}
	h.checkDatabase(filepath.Join(dir, "consumer.db"))
	list, err := s.Images(h.T.Context())
	check(h.T, err)
	h.checkDeletedMessages(list, marks)
	h.checkFiles(list)
	if slices.Contains(marks, markFurther) {
		first := byKeyIn(list, images()[0].key)
		if rows, err := s.SnapshotsOf(h.T.Context(), first.ID); err != nil || len(rows) < 2 {
			h.T.Errorf("the further snapshot was reported, and is not in the journal: %+v, %v", rows, err)
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

// checkDeletedMessages is the promise to the queue: a message is deleted only when its
// image is terminal, on the disk.
func (h *host) checkDeletedMessages(list []store.Image, marks []string) {
	h.T.Helper()
	for _, m := range marks {
		key, ok := strings.CutPrefix(m, markDeleted)
		if !ok {
			continue
		}
		if img := byKeyIn(list, key); img.State != byKey(key).ends {
			h.T.Errorf("the message of %s was deleted, and the journal has: %q %+v", key, img.Key, img.Progress)
		}
	}
}

// checkFiles checks the files that the journal's events speak of.
func (h *host) checkFiles(list []store.Image) {
	h.T.Helper()
	for _, img := range list {
		if img.State.Refused() {
			continue
		}
		if img.Blob != nil {
			if sum := sumOf(img.Blob.Path); sum != img.Blob.SHA256 {
				h.T.Errorf("image %d is said to be downloaded; its archive: %s", img.ID, sum)
			}
		}
		if img.Tree != nil {
			digest := strings.TrimPrefix(img.Tree.Digest, "sha256:")
			if sum := sumOf(filepath.Join(h.State, "manifests", digest)); sum != digest {
				h.T.Errorf("image %d is said to be sealed; its manifest: %s", img.ID, sum)
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

// checkDatabase asks SQLite.
func (h *host) checkDatabase(path string) {
	h.T.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	check(h.T, err)
	defer db.Close()
	for _, pragma := range []string{"integrity_check", "foreign_key_check"} {
		rows, err := db.QueryContext(h.T.Context(), "PRAGMA "+pragma)
		check(h.T, err)
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil || text != "ok" {
				h.T.Errorf("PRAGMA %s of %s: %s %v", pragma, path, text, err)
			}
		}
		check(h.T, errors.Join(rows.Err(), rows.Close()))
	}
}

// checkInvariants checks what must hold while no daemon runs, and that every image is
// what was uploaded.
func (h *host) checkInvariants() {
	h.T.Helper()
	found := h.Look()
	h.checkFilesystems(found)
	h.checkFiles(found.Images)
	for _, img := range found.Images {
		h.checkSnapshots(img)
	}
	if out := h.Consumer("verify", "--all"); strings.Count(out, "as sealed") != active(found.Images) {
		h.T.Errorf("verify --all, %d images are active:\n%s", active(found.Images), out)
	}
	h.checkDatabase(filepath.Join(h.State, "consumer.db"))
}

func active(list []store.Image) (n int) {
	for _, img := range list {
		if img.State == store.StateActive {
			n++
		}
	}
	return n
}

// checkFilesystems checks those of the images.
func (h *host) checkFilesystems(found invariants.Host) {
	h.T.Helper()
	pool, err := invariants.OpenPool(h.T.Context(), h.Store)
	check(h.T, err)
	defer pool.Close()
	for _, d := range found.Devices {
		if d.Kind != store.DeviceKindImage {
			continue
		}
		path, err := pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, true)
		check(h.T, err)
		disks.Run(h.T, "e2fsck", "-fn", path)
		check(h.T, pool.Deactivate(devmapper.ID(d.ID)))
	}
}

// checkSnapshots compares what an image's snapshots hold with what was uploaded.
func (h *host) checkSnapshots(img store.Image) {
	h.T.Helper()
	rows, err := h.Store.SnapshotsOf(h.T.Context(), img.ID)
	check(h.T, err)
	if img.State == store.StateActive && len(rows) == 0 {
		h.T.Errorf("%s is active and has no snapshot", img.Key)
	}
	for _, sn := range rows {
		for path, want := range byKey(img.Key).files {
			if got, err := invariants.ReadFile(sn.Path, path); err != nil || string(got) != want {
				h.T.Errorf("%s of %s: %d bytes, not the %d that were uploaded: %v",
					path, sn.Path, len(got), len(want), err)
			}
		}
	}
}
