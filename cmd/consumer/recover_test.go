package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

// Recover touches neither a database nor what belongs to one, and says what to move.
func TestRecoverRefusesADatabase(t *testing.T) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		dir := t.TempDir()
		t.Setenv("STATE_DIR", dir)
		path := databasePath(dir) + suffix
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := dispatch(t.Context(), []string{"recover"}, io.Discard)
		if code := report(err, io.Discard); code != 1 || !strings.Contains(err.Error(), "move "+path+" away") {
			t.Errorf("%q: exit code %d, %v", suffix, code, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
			t.Errorf("%q: %q, %v", suffix, text, err)
		}
	}
}

// A complete database gets its name; nothing that has it already is replaced, and one
// that is not complete does not get it.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(from, "new")
	write(from+"-wal", "more")
	if err := publish(from, to); err == nil {
		t.Error("published without its write-ahead log")
	}
	write(from+"-wal", "")
	write(to, "precious")
	if err := publish(from, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a database: %v", err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	if err := publish(from, to); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Stat(from); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its old name remains: %v", err)
	}
}

// What is printed names every device, every archive that nobody claims, and what to do
// next; a hostile key cannot reach the terminal.
func TestPrintFound(t *testing.T) {
	r := recovered{
		Pool: store.Pool{Name: "images", UUID: "u"},
		Devices: []reconcile.Candidate{
			{Device: 1, Is: reconcile.FoundImage, Image: 3, Key: "images/\x1b[31m.tar", Archive: true},
			{Device: 2, Is: reconcile.FoundSnapshot, Image: 3, Path: "/dev/mapper/x"},
		},
		Archives: []string{"/state/blobs/9.tar"},
	}
	var out bytes.Buffer
	o := &output{out: &out}
	if err := o.printFound(r); err != nil {
		t.Error(err)
	}
	for _, says := range []string{
		"1 image, 1 snapshot", "consumer backfill", "/dev/mapper/x", "/state/blobs/9.tar",
		"yes",
	} {
		if !strings.Contains(out.String(), says) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q does not say %q, or has an escape sequence", out.String(), says)
		}
	}
	out.Reset()
	r.Devices, r.DryRun = append(r.Devices,
		reconcile.Candidate{Device: 5, Is: reconcile.FoundUnproven, Why: "damaged"}), true
	if err := o.printFound(r); !errors.Is(err, errLeftAlone) ||
		!strings.Contains(out.String(), "nothing was written") || !strings.Contains(out.String(), "damaged") {
		t.Errorf("%v: %s", err, out.String())
	}
}
