package extract

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// What is accepted of the corpus is written and read back the same, and nothing outside
// changes.
func TestCorpus(t *testing.T) {
	cases, err := images.Corpus()
	check(t, err)
	s := newSentinel(t)
	dir := s.mountPoint()
	root := newDisk(t, 64<<20).mount(dir)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			for _, p := range []archive.Policy{archive.Strict, archive.Distro} {
				if c.Outcome(string(p)) != "" {
					continue
				}
				opts := archive.Options{Policy: p, Layout: []string{}}
				plan, err := archive.Check(t.Context(), bytes.NewReader(c.Bytes), int64(len(c.Bytes)), opts)
				check(t, err)
				written, err := Write(t.Context(), bytes.NewReader(c.Bytes), plan, root, nil)
				check(t, err)
				compare(t, written, root)
				check(t, os.RemoveAll(filepath.Join(dir, archive.RootName)))
				check(t, removeConfig(dir))
			}
		})
	}
	check(t, root.Close())
	check(t, unix.Unmount(dir, 0))
	s.unchanged()
}

func removeConfig(dir string) error {
	err := os.Remove(filepath.Join(dir, archive.ConfigName))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
