package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"imagemanager.internal/internal/archive"
)

// set is one tar archive.
type set struct {
	Name    string
	Path    string
	Entries int
	Bytes   int64 // of the tar
	Device  int64 // bytes of a device that holds it
	Many    bool  // one of those that differ in the number of small files only
}

// sets makes what can be made in code, and looks at all.
func (l *lab) sets(ctx context.Context, o options) ([]set, error) {
	// with their directories, not quite the 100,000 entries that an image may have
	counts, file := []int{1_000, 10_000, 99_000}, int64(1<<30)
	if o.smoke {
		counts, file = []int{100, 300}, 4<<20
	}
	var all []set
	for _, s := range []set{
		{Name: "Debian, minimal", Path: o.minbase}, {Name: "Debian with gcc and git", Path: o.large},
	} {
		if s.Path != "" {
			all = append(all, s)
		}
	}
	for _, n := range counts {
		path := filepath.Join(l.work, fmt.Sprintf("small-%d.tar", n))
		s := set{Name: fmt.Sprintf("%d small files", n), Path: path, Many: true}
		if err := l.makeOnce(s.Path, func(w *tar.Writer) error { return smallFiles(w, n) }); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	path := filepath.Join(l.work, fmt.Sprintf("file-%d.tar", file))
	big := set{Name: fmt.Sprintf("one file of %d MiB", file>>20), Path: path}
	if err := l.makeOnce(big.Path, func(w *tar.Writer) error { return oneFile(w, "usr/file", file) }); err != nil {
		return nil, err
	}
	all = append(all, big)
	for i := range all {
		if err := all[i].look(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// look reads the headers.
func (s *set) look(ctx context.Context) error {
	f, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	plan, err := archive.Check(ctx, f, info.Size(), archive.Options{Policy: archive.Distro})
	if err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	s.Entries, s.Bytes, s.Device = plan.Entries, info.Size(), max(1<<30, plan.DeviceBytes()*5/4)
	return nil
}

// makeOnce writes an archive unless it is there.
func (l *lab) makeOnce(path string, fill func(*tar.Writer) error) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffer)
	for _, dir := range []string{"etc", "usr", "var"} {
		if err := header(w, tar.TypeDir, dir, 0o755, 0); err != nil {
			return err
		}
	}
	if err := fill(w); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), buffer.Flush(), f.Sync()); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// header writes what the archives have in common.
func header(w *tar.Writer, kind byte, name string, mode, size int64) error {
	return w.WriteHeader(&tar.Header{
		Typeflag: kind, Name: name, Mode: mode, Size: size, ModTime: time.Unix(1_700_000_000, 0),
	})
}

// smallFiles writes n files of 0 to 5 KiB, a hundred in a directory.
func smallFiles(w *tar.Writer, n int) error {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same data every time
	for i := range n {
		dir := fmt.Sprintf("usr/share/%04d", i/100)
		if i%100 == 0 {
			if err := header(w, tar.TypeDir, dir, 0o755, 0); err != nil {
				return err
			}
		}
		if err := oneFile(w, fmt.Sprintf("%s/file-%06d", dir, i), random.Int64N(5<<10)); err != nil {
			return err
		}
	}
	return nil
}

// oneFile writes a file of noise.
func oneFile(w *tar.Writer, name string, size int64) error {
	if err := header(w, tar.TypeReg, name, 0o644, size); err != nil {
		return err
	}
	noise, buf := rand.NewChaCha8([32]byte{byte(size)}), make([]byte, min(size, 1<<20))
	for size > 0 {
		n := min(size, int64(len(buf)))
		_, _ = noise.Read(buf[:n]) // it never fails
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}
