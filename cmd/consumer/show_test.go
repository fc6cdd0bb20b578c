package main

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
)

// took finds what differs in every run of show besides moments: durations.
var took = regexp.MustCompile(`\b(\d+m)?\d+(\.\d+)?m?s\b|"took_ms": \d+`)

func steadyImage(text string) string { return steady(took.ReplaceAllString(text, "…")) }

// People see an image in full: what became of it, what to do, and every change.
func TestGoldenShow(t *testing.T) {
	someJournal(t)
	var all strings.Builder
	for _, line := range []string{
		"show debian/12.tar", "show 1", "show setuid.tar", "show busy.tar", "show attack.tar", "show 6",
	} {
		code, text := perform(t, line)
		if code != 0 || strings.Contains(text, "\x1b") {
			t.Errorf("%s: exit code %d: %s", line, code, text)
		}
		all.WriteString("$ consumer " + line + "\n" + steadyImage(text) + "\n")
	}
	same(t, "testdata/show.txt", all.String())
	for line, file := range map[string]string{"show 3 --json": "show.json", "show 2 -o json": "show-refused.json"} {
		code, text := perform(t, line)
		if code != 0 {
			t.Errorf("%s: exit code %d: %s", line, code, text)
		}
		same(t, "testdata/json/"+file, steadyImage(text))
	}
}

// Every state has its way on.
func TestWhatToDo(t *testing.T) {
	for _, state := range store.States() {
		s := shownImage{Image: store.Image{ID: 17, Progress: store.Progress{State: state}}}
		if s.whatToDo() == "" {
			t.Errorf("%s has none", state)
		}
	}
}

// Failures are counted as people count them, and what was stopped is none.
func TestShowCountsFailures(t *testing.T) {
	j := begun(t)
	ctx, img := t.Context(), j.pending("images/a.tar", "1")
	for range 3 {
		a := must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageDownload))
		must[store.Image](j)(j.Fail(ctx, a, store.Failure{Verdict: "retry", Reason: "timed out"}))
		a = must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageDownload))
		must[store.Image](j)(j.Undo(ctx, a, "shutdown"))
	}
	a := must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageDownload))
	must[store.Image](j)(j.FinishDownload(ctx, a, store.Blob{Path: "p", SHA256: "s", Size: 1}))
	must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageUnpack)) // and goes on
	_, text := perform(t, "show 1 --json")
	var s shownImage
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if want := (attempts{Done: 1, Failed: 3, Undone: 3}); s.Attempts != want || s.Failures != 0 || len(s.Times) != 1 {
		t.Errorf("%+v, %d failures, times %v, want %+v", s.Attempts, s.Failures, s.Times, want)
	}
	if _, text := perform(t, "show 1"); !strings.Contains(text, "0 since the last stage that was done, 3 in all") {
		t.Error(text)
	}
}

// What the policy changed in an image that a rebuilt journal has is not known.
func TestShowUnknownChanges(t *testing.T) {
	s := shownImage{Image: store.Image{Progress: store.Progress{Tree: &store.Tree{Changed: 3, Policy: "distro"}}}}
	for known, says := range map[int]string{0: "which ones is not known", 2: "the first 2 are below"} {
		s.Adjustments = make([]store.Adjustment, known)
		if text := s.changed(); !strings.Contains(text, "changed 3 entries") || !strings.Contains(text, says) {
			t.Errorf("%d known: %s", known, text)
		}
	}
}

// The page on JSON has every field that images do not have.
func TestShowFieldsAreDocumented(t *testing.T) {
	shown, images := fieldsOf(reflect.TypeFor[shownImage](), ""), fieldsOf(reflect.TypeFor[store.Image](), "")
	shown = append(shown, fieldsOf(reflect.TypeFor[stageTime](), "times[].")...)
	shown = append(shown, fieldsOf(reflect.TypeFor[store.Adjustment](), "adjustments[].")...)
	documented(t, "consumer show", slices.DeleteFunc(shown, func(f string) bool { return slices.Contains(images, f) }))
}
