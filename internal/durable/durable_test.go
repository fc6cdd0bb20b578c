package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A file that is renamed is there under its new name alone, also in another directory.
func TestRename(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	from := filepath.Join(dir, "a.part")
	if err := errors.Join(os.Mkdir(sub, 0o700), os.WriteFile(from, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{filepath.Join(dir, "a"), filepath.Join(sub, "a")} {
		if err := Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(from); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", from, err)
		}
		if text, err := os.ReadFile(to); err != nil || string(text) != "x" {
			t.Errorf("%s: %q, %v", to, text, err)
		}
		from = to
	}
}

// What is not there is named in the error.
func TestNotThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, err := range []error{SyncDir(missing), Rename(missing, missing+".new")} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
}
