package archive

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// corpusDir has the archives that other projects test with.
const corpusDir = "../../test/images/testdata"

// corpusFile says what becomes of each: path, outcome under strict and under distro ("-": the same; "ok": accepted), and why it is
// right where the reason does not say it.
const corpusFile = "testdata/corpus.txt"

// judgeAnyTree checks without the rule on the layout: nearly none of the corpus is a root file system.
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
	f, err := os.Open(corpusFile)
	check(t, err)
	defer f.Close()
	want := map[string]expectation{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case len(fields) != 3:
			t.Fatalf("%s: %q", corpusFile, line)
		case fields[2] == "-":
			fields[2] = fields[1]
		}
		want[fields[0]] = expectation{fields[1], fields[2]}
	}
	return want
}

// Every archive of the corpus ends as the table says; what is accepted is written and read back the same, and nothing outside changes.
func TestCorpus(t *testing.T) {
	want, all := expectations(t), corpus(t)
	for name := range want {
		if all[name] == nil {
			t.Errorf("%s is in the table and not in the corpus", name)
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
				*to = "ok"
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
