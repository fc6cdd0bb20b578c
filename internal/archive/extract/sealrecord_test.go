package extract

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// sealed extracts an archive into a fresh directory and seals it.
func sealed(t *testing.T, b []byte, record string) (dir string, root *os.File, written *fstree.Inventory) {
	t.Helper()
	needRoot(t)
	dir = t.TempDir()
	root, err := os.Open(dir)
	check(t, err)
	t.Cleanup(func() { root.Close() })
	written = extractBytes(t, b, archive.Strict, root)
	check(t, WriteSealRecord(root, []byte(record)))
	return dir, root, written
}

// The seal record is read as it was written and is not part of the tree: trees have the
// digest that they have without one. It is written once.
func TestSealIsBesideTheTree(t *testing.T) {
	for _, record := range []string{"{}\n", strings.Repeat("x", archive.MaxSealRecord)} {
		_, root, written := sealed(t, images.Tar(images.Root()...), record)
		if got, err := ReadSealRecord(root); err != nil || string(got) != record {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		compare(t, written, root)
		if err := WriteSealRecord(root, []byte("again")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second record: %v", err)
		}
	}
	root := openTemp(t)
	if _, err := ReadSealRecord(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	for _, record := range []string{"", strings.Repeat("x", archive.MaxSealRecord+1)} {
		if err := WriteSealRecord(root, []byte(record)); !errors.Is(err, archive.ErrSealRecord) {
			t.Errorf("%d bytes: %v, want ErrSeal", len(record), err)
		}
	}
}

// An archive that brings a file of the record's name has it in the tree, where it is one
// file among others.
func TestArchiveCannotBringASeal(t *testing.T) {
	forged := images.Entry{Name: archive.SealRecordName, Body: "forged", Mode: archive.SealRecordMode}
	for name, b := range map[string][]byte{
		"plain": images.Tar(images.Root(forged)...),
		"image": images.Tar(images.Image{Layers: [][]byte{images.Tar(images.Root(forged)...)}}.OCI()...),
	} {
		t.Run(name, func(t *testing.T) {
			_, root, written := sealed(t, b, "ours")
			if got, err := ReadSealRecord(root); err != nil || string(got) != "ours" {
				t.Errorf("read %q, %v", got, err)
			}
			compare(t, written, root)
			if !slices.ContainsFunc(written.Records,
				func(r *fstree.Record) bool { return r.Path() == archive.RootName+"/"+archive.SealRecordName }) {
				t.Error("the archive's own file is not in its tree")
			}
		})
	}
	// Beside rootfs/ in a bundle, it is refused.
	bundle := []images.Entry{forged}
	for _, e := range images.Root() {
		e.Name = archive.RootName + "/" + e.Name
		bundle = append(bundle, e)
	}
	if _, err := judgeBytes(t, images.Tar(bundle...), archive.Strict); outcome(t, err) != "layout" {
		t.Errorf("a bundle with a seal: %v", err)
	}
}

// What is in the record's place and not as it was made is neither passed over nor read.
func TestTamperedSeal(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"mode":      func(p string) error { return os.Chmod(p, 0o644) },
		"owner":     func(p string) error { return os.Lchown(p, 1, 0) },
		"time":      func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1, 0)) },
		"content":   func(p string) error { return os.WriteFile(p, []byte("other"), archive.SealRecordMode) },
		"empty":     func(p string) error { return errors.Join(os.Truncate(p, 0), epoch(p)) },
		"too long":  func(p string) error { return errors.Join(os.Truncate(p, archive.MaxSealRecord+1), epoch(p)) },
		"link":      func(p string) error { return relink(p, "rootfs/etc/hello") },
		"hard link": func(p string) error { return os.Link(p, filepath.Dir(p)+"/rootfs/second") },
		"directory": func(p string) error {
			return errors.Join(os.Remove(p), os.Mkdir(p, archive.SealRecordMode), epoch(p))
		},
		"pipe": func(p string) error {
			return errors.Join(os.Remove(p), unix.Mkfifo(p, archive.SealRecordMode),
				epoch(p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root, written := sealed(t, images.Tar(images.Root()...), "{}\n")
			check(t, change(filepath.Join(dir, archive.SealRecordName)))
			if record, err := ReadSealRecord(root); !errors.Is(err, archive.ErrSealRecord) {
				t.Errorf("read %q, %v, want ErrSeal", record, err)
			}
			found, err := ReadBack(t.Context(), root)
			check(t, err)
			if diff := written.Diff(found, 10); !slices.ContainsFunc(diff,
				func(l string) bool { return strings.HasPrefix(l, `"`+archive.SealRecordName+`" should not`) }) {
				t.Errorf("%q does not name it", diff)
			}
		})
	}
}

func epoch(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(0, 0)) }
