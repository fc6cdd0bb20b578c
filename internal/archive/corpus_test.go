package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/test/images"
)

// corpusDir has the archives that other projects test with.
const corpusDir = "../../test/images/testdata"

// judgeAnyTree checks without the rule on the layout: nearly none of the corpus is a root
// file system.
func judgeAnyTree(t testing.TB, b []byte, p Policy) (*Plan, error) {
	t.Helper()
	opts, err := Options{Policy: p}.withDefaults()
	check(t, err)
	opts.Layout = nil
	c := &checker{src: bytes.NewReader(b), opts: opts}
	return c.check(t.Context(), int64(len(b)))
}

func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(corpusDir + "/*/*.tar")
	check(t, err)
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		check(t, err)
		name, err := filepath.Rel(corpusDir, f)
		check(t, err)
		all[name] = b
	}
	if len(all) < 200 {
		t.Fatalf("only %d archives in %s", len(all), corpusDir)
	}
	return all
}

type expectation struct{ strict, distro string }

func expectations(t testing.TB) map[string]expectation {
	t.Helper()
	cases, err := images.Corpus()
	check(t, err)
	want := map[string]expectation{}
	for _, c := range cases {
		want[c.Name] = expectation{c.Strict, c.Distro}
	}
	return want
}

// Every archive of the corpus ends as the table says; what is accepted is written and
// read back the same, and nothing outside changes.
func TestCorpus(t *testing.T) {
	want, all := expectations(t), corpus(t)
	for name := range all {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
	s := newSentinel(t)
	dir := s.mountPoint()
	root := newDisk(t, 64<<20).mount(dir)
	for name, b := range all {
		t.Run(name, func(t *testing.T) {
			var got expectation
			for p, to := range map[Policy]*string{Strict: &got.strict, Distro: &got.distro} {
				plan, err := judgeAnyTree(t, b, p)
				if *to = outcome(t, err); *to != "" {
					continue
				}
				written, err := Extract(t.Context(), bytes.NewReader(b), plan, root, nil)
				check(t, err)
				compare(t, written, root)
				check(t, os.RemoveAll(filepath.Join(dir, rootfsName)))
				check(t, removeConfig(dir))
			}
			if got != want[name] {
				t.Errorf("ends as %+v, expected %+v", got, want[name])
			}
		})
	}
	check(t, root.Close())
	check(t, unix.Unmount(dir, 0))
	s.unchanged()
}

func removeConfig(dir string) error {
	err := os.Remove(filepath.Join(dir, configName))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
