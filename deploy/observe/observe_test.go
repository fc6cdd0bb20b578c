package main

import (
	"os"
	"path/filepath"
	"testing"
)

var top = filepath.Join("..", "..")

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The committed files are those that the definition makes.
func TestFilesAreUpToDate(t *testing.T) {
	fresh := t.TempDir()
	for _, o := range outputs(fresh, "") {
		if err := os.MkdirAll(filepath.Join(fresh, filepath.Dir(o.path)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(fresh, recording), []byte(read(t, recording)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(fresh, "docs/runbooks.md"); err != nil {
		t.Fatal(err)
	}
	for _, o := range outputs(fresh, "") {
		made, err := os.ReadFile(filepath.Join(fresh, o.path))
		if err != nil || string(made) != read(t, o.path) {
			t.Errorf("%s is out of date, or was edited: make observe (%v)", o.path, err)
		}
	}
}
