package archive

import (
	"bytes"
	"path/filepath"
	"testing"

	"imagemanager.internal/test/images"
)

// corpusDir has the archives that other projects test with.
const corpusDir = "../../test/images/testdata"

// Every archive of the corpus is in the table, and ends as the table says.
func TestCorpus(t *testing.T) {
	cases, err := images.Corpus()
	check(t, err)
	listed := map[string]bool{}
	for _, c := range cases {
		listed[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			for p, want := range map[Policy]string{Strict: c.Strict, Distro: c.Distro} {
				// Without the rule on the layout: nearly none of the corpus is a root
				// file system.
				opts := Options{Policy: p, Layout: []string{}, Platform: Platform{"linux", "amd64"}}
				_, err := Check(t.Context(), bytes.NewReader(c.Bytes), int64(len(c.Bytes)), opts)
				if got := outcome(t, err); got != want {
					t.Errorf("%s: outcome %q, want %q: %v", p, got, want, err)
				}
			}
		})
	}
	files, err := filepath.Glob(corpusDir + "/*/*.tar")
	check(t, err)
	for _, f := range files {
		if name, err := filepath.Rel(corpusDir, f); err != nil || !listed[name] {
			t.Errorf("%s is not in the table: %v", name, err)
		}
	}
	if len(files) < 200 {
		t.Errorf("only %d archives in %s", len(files), corpusDir)
	}
}
