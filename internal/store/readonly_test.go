package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A look at a database shows what was committed, and leaves the directory as it was,
// whether somebody has the database open or nobody.
func TestOpenReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "consumer.db")
	if _, err := OpenReadOnly(t.Context(), path); !errors.Is(err, ErrNotFound) {
		t.Errorf("no database: %v", err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	enqueue := func(s *Store, key string) {
		t.Helper()
		if _, _, err := s.Enqueue(t.Context(), Object{Bucket: "b", Key: key, ETag: "e"}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(want int) {
		t.Helper()
		before := files(t, filepath.Dir(path))
		r, err := OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		images, err := r.Images(t.Context())
		if err != nil || len(images) != want || !r.ReadOnly() {
			t.Errorf("%d images, %v, want %d", len(images), err, want)
		}
		if _, _, err := r.Enqueue(t.Context(), Object{Bucket: "b", Key: "k", ETag: "f"}); !Unwritable(err) {
			t.Errorf("it was written to: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if after := files(t, filepath.Dir(path)); after != before {
			t.Errorf("%s was there, now %s", before, after)
		}
	}
	enqueue(s, "images/a.tar")
	look(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look(1)
}

// files names the files of a directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names string
	for _, e := range entries {
		names += e.Name() + " "
	}
	return names
}

// Images are found by the end of their key, all of the text taken as it is.
func TestByKeyEnd(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"images/a.tar", "other/a.tar", "a.tar", "images/%.tar"} {
		if _, _, err := s.Enqueue(t.Context(), Object{Bucket: "b", Key: key, ETag: "e"}); err != nil {
			t.Fatal(err)
		}
	}
	for end, want := range map[string]int{
		"/a.tar": 2, "a.tar": 3, "%.tar": 1, "/%.tar": 1, "s/a.tar": 1, "x/images/a.tar": 0,
	} {
		if images, err := s.ByKeyEnd(t.Context(), end); err != nil || len(images) != want {
			t.Errorf("%q: %d images, %v, want %d", end, len(images), err, want)
		}
	}
}

// Images are found by the beginning of their key or id, the newest first.
func TestNamed(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"images/a.tar", "images/b.tar", "other/1%.tar", "images/a.tar"} {
		if _, _, err := s.Enqueue(t.Context(), Object{Bucket: "b", Key: key, ETag: t.Name() + key[:1]}); err != nil {
			t.Fatal(err)
		}
	}
	for begin, want := range map[string][]int64{
		"": {3, 2}, "images/": {2, 1}, "images/a": {1}, "3": {3}, "%": nil, "other/1%": {3},
	} {
		images, err := s.Named(t.Context(), begin, 2)
		if err != nil || len(images) != len(want) {
			t.Errorf("%q: %v, %v, want %d", begin, images, err, want)
			continue
		}
		for i, img := range images {
			if img.ID != want[i] {
				t.Errorf("%q: image %d, want %d", begin, img.ID, want[i])
			}
		}
	}
}

// A look opens the database as usual where it may be written.
func TestOpenToLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "consumer.db")
	if _, err := OpenToLook(t.Context(), path); !errors.Is(err, ErrNotFound) {
		t.Errorf("no database: %v", err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := OpenToLook(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.ReadOnly() {
		t.Error("it is read-only")
	}
}
