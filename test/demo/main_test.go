package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A file of the image is found through its links, absolute ones too. Nothing outside of
// the image is read.
func TestReadInside(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	for path, text := range map[string]string{
		filepath.Join(dir, "rootfs/usr/lib/os-release"): "debian",
		outside: "secret",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs/etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, c := range map[string]struct{ target, want string }{
		"relative": {"../usr/lib/os-release", "debian"},
		"absolute": {"/usr/lib/os-release", "debian"},
		"outside":  {"../../.." + outside, ""},
		"itself":   {"itself", ""},
		"nowhere":  {"none", ""},
	} {
		link := "rootfs/etc/" + name
		if err := os.Symlink(c.target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		text, err := readInside(root, link)
		if string(text) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, text, err, c.want)
		}
	}
}
