package store

import (
	"regexp"
	"testing"
)

// checkTraceID compares an image with its first event. The id of its trace is in both.
func checkTraceID(t *testing.T, img Image, queued Event) {
	t.Helper()
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(img.TraceID) || queued.Detail.TraceID != img.TraceID {
		t.Errorf("image %d: trace %q, in its event %s: %q", img.ID, img.TraceID, queued.Kind, queued.Detail.TraceID)
	}
}

// Every image has a trace of its own. It stays the same, however often the object is
// notified.
func TestTraceID(t *testing.T) {
	s := newStore(t)
	seen := map[string]bool{}
	for n := range 3 {
		img, _, err := s.Enqueue(t.Context(), object(n))
		if err != nil {
			t.Fatal(err)
		}
		again, created, err := s.Enqueue(t.Context(), object(n))
		if err != nil || created || again.TraceID != img.TraceID || seen[img.TraceID] {
			t.Errorf("image %d: trace %q, then %q; created %t, %v", n, img.TraceID, again.TraceID, created, err)
		}
		seen[img.TraceID] = true
	}
}
