package reconcile

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/store"
)

// Files that belong to no image are left alone, with the reason.
func TestFilesOfNoImage(t *testing.T) {
	c := comparison{archives: []string{"23.tar", "23.tar.part", "7.tar", "notes.txt", "23.tgz"}}
	c.after.images = map[int64]store.Image{7: {ID: 7, Progress: store.Progress{
		State: store.StateActive, Blob: &store.Blob{Path: "7.tar"},
	}}}
	want := map[string]string{
		"file 23.tar": "the journal has no such image", "file 23.tar.part": "the journal has no such image",
		"file notes.txt": "it is not named like an archive", "file 23.tgz": "it is not named like an archive",
	}
	for _, a := range (&Reconciler{}).diffArchives(c) {
		if a.Kind != Report || a.Reason != want[a.What] {
			t.Errorf("%s %s: %s, want %q", a.Kind, a.What, a.Reason, want[a.What])
		}
		delete(want, a.What)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
}

// The log does not say that all agrees if something is left.
func TestAgreementIsSaidExactly(t *testing.T) {
	for says, rc := range map[string]Recovered{
		`"info"`:                   {},
		"but for what is left":     {Problems: []Problem{{}}, Foreign: []string{"thin device 35"}},
		"but for what is not the ": {Foreign: []string{"thin device 35"}},
	} {
		var log bytes.Buffer
		(&Reconciler{log: zerolog.New(&log)}).logRecovered(rc)
		text, all := log.String(), says == `"info"`
		if !strings.Contains(text, says) || strings.Contains(text, `agree"`) != all {
			t.Errorf("%+v: %s, want %s", rc, text, says)
		}
	}
}
