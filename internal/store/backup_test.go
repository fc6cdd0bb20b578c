package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Copies that are made while somebody writes are each the journal of one moment, whole,
// in which every row is the fold of its events.
func TestBackupWhileWriting(t *testing.T) {
	s := newStore(t)
	run(t, s, object(0))
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan error, 1) // buffered: the goroutine ends even if the test has failed
	go func() {
		for i := 1; ctx.Err() == nil; i++ {
			if img, _, err := s.Enqueue(t.Context(), object(i)); err != nil {
				written <- err
				return
			} else if _, err := s.Begin(t.Context(), img.ID, StageDownload); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	var seqs []int64
	path := filepath.Join(t.TempDir(), "copy.db")
	for i := range 5 {
		if i > 0 {
			awaitEvents(t, s, seqs[i-1]+10)
		}
		b := must[BackupInfo](t)(s.Backup(t.Context(), path, i > 0))
		seqs = append(seqs, b.Seq)
		if info, err := os.Stat(path); err != nil || info.Size() != b.Bytes || info.Mode().Perm() != 0o600 {
			t.Errorf("%+v is %v, %v", b, info, err)
		}
	}
	stop()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	copied := must[*Store](t)(OpenExisting(t.Context(), path))
	defer copied.Close()
	last := int64(0)
	for _, img := range must[[]Image](t)(copied.Images(t.Context())) {
		events := must[[]Event](t)(copied.History(t.Context(), img.ID))
		if p := must[Progress](t)(Fold(Progress{}, events...)); mustJSON(t, p) != mustJSON(t, img.Progress) {
			t.Errorf("image %d: fold %+v, row %+v", img.ID, p, img.Progress)
		}
		last = max(last, events[len(events)-1].Seq)
	}
	if last != seqs[4] || seqs[4] <= seqs[0] {
		t.Errorf("the copies end at %v, the last has %d", seqs, last)
	}
	onlyFiles(t, filepath.Dir(path), "copy.db", "copy.db-shm", "copy.db-wal")
}

func awaitEvents(t *testing.T, s *Store, seq int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(must[[]Event](t)(s.Since(t.Context(), seq))) == 0 {
		<-tick.C
	}
}

func mustJSON(t *testing.T, p Progress) string {
	t.Helper()
	return fmt.Sprint(p.State, p.Stage, p.Running, p.Attempt, p.Failures, p.Reason)
}

// onlyFiles checks that a directory holds nothing but these.
func onlyFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, name := range names {
		want[name] = true
	}
	for _, e := range must[[]fs.DirEntry](t)(os.ReadDir(dir)) {
		if !want[e.Name()] {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

// A backup replaces no file unless it may, and the database never; what fails leaves
// nothing behind.
func TestBackupRefuses(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(s.path, link); err != nil {
		t.Fatal(err)
	}
	run(t, s, object(1))
	for path, force := range map[string]bool{other: false, s.path: true, s.path + "-wal": true, link: true, dir: true} {
		if b, err := s.Backup(t.Context(), path, force); err == nil {
			t.Errorf("backup to %s (force %t): %+v", path, force, b)
		}
	}
	if text := must[[]byte](t)(os.ReadFile(other)); string(text) != "precious" {
		t.Errorf("the existing file holds %q", text)
	}
	if _, err := s.Backup(t.Context(), filepath.Join(dir, "none", "x"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("backup to no directory: %v", err)
	}
	onlyFiles(t, dir, "other", "link.db")
	if img := must[[]Image](t)(s.Images(t.Context())); len(img) != 1 {
		t.Errorf("images: %+v", img)
	}
}

// wholeCopy returns what a database with a few images holds.
func wholeCopy(t *testing.T) []byte {
	t.Helper()
	s := newStore(t)
	for i := range 5 {
		run(t, s, object(i))
	}
	path := filepath.Join(t.TempDir(), "whole.db")
	must[BackupInfo](t)(s.Backup(t.Context(), path, false))
	return must[[]byte](t)(os.ReadFile(path))
}

// A damaged database is refused and left as it is, byte for byte: also what is damaged
// amid the file, which the first look does not see.
func TestDamaged(t *testing.T) {
	text := wholeCopy(t)
	for name, harm := range map[string]func([]byte) []byte{
		"garbage": func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) },
		"header":  func(b []byte) []byte { copy(b, "SQLite format 4"); return b },
		"short":   func(b []byte) []byte { return b[:len(b)/2] },
		"page":    func(b []byte) []byte { copy(b[len(b)-2048:], bytes.Repeat([]byte{0xff}, 2048)); return b },
		"pages":   func(b []byte) []byte { clear(b[4096:]); return b },
		"tiny":    func([]byte) []byte { return []byte("x") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.db")
			harmed := harm(bytes.Clone(text))
			if err := os.WriteFile(path, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(t.Context(), path); !errors.Is(err, ErrCorrupt) || !Corrupt(err) {
				t.Errorf("Open: %v, want ErrCorrupt", err)
				if err == nil {
					s.Close()
				}
			}
			if !bytes.Equal(must[[]byte](t)(os.ReadFile(path)), harmed) {
				t.Error("the file was changed")
			}
		})
	}
}

// A damaged database is not backed up as if it were whole.
func TestDamagedIsNotBackedUp(t *testing.T) {
	path, text := filepath.Join(t.TempDir(), "c.db"), wholeCopy(t)
	copy(text[len(text)-2048:], bytes.Repeat([]byte{0xff}, 2048))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	harmed := must[*Store](t)(OpenExisting(t.Context(), path)) // it does not read the whole file
	defer harmed.Close()
	if b, err := harmed.Backup(t.Context(), filepath.Join(filepath.Dir(path), "copy"), false); !Corrupt(err) {
		t.Errorf("backed up: %+v, %v, want ErrCorrupt", b, err)
	}
	onlyFiles(t, filepath.Dir(path), "c.db", "c.db-wal", "c.db-shm")
}

// What the check of a large database costs at each start: CIM_EVENTS says how many
// events.
func TestCheckCost(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("CIM_EVENTS"))
	if err != nil {
		n = 1000
	}
	s := newStore(t)
	img := run(t, s, object(1))
	err = s.inTx(t.Context(), func(tx transaction) error {
		for i := range n {
			e := Attempt{Image: img.ID, Stage: StageUnpack, N: int64(i)}.event(EventStep, s.now(), Detail{})
			e.Detail.Device = &Device{
				ID: int64(i), Image: img.ID, Kind: DeviceKindImage, State: DeviceFormatted, Bytes: 1 << 30,
				FSUUID: "0c6b1ef4-7a4d-4f0e-9d5e-0d7f4f9b5f11",
			}
			if err := insertEvent(t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b := must[BackupInfo](t)(s.Backup(t.Context(), filepath.Join(t.TempDir(), "c.db"), false))
	began := time.Now()
	if err := checkFile(t.Context(), b.Path); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events, %d bytes: checked in %s", n, b.Bytes, time.Since(began))
}
