package e2e

import (
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// S3 does not know a continuation token any more: the backfill starts again.
func TestBackfillTokenForgotten(t *testing.T) {
	h := newHost(t, "RECONCILE_INTERVAL=0")
	h.Check(h.Cloud.Silence(t.Context()))
	h.put("images/x.tar", tarballs.RootFS("one", 3))
	for _, token := range []string{"of-a-bucket-that-was", "no token at all"} {
		h.Check(h.Store.SetBackfill(t.Context(),
			store.Backfill{Bucket: h.Cloud.Name, Prefix: "images/", Token: token, StartedAt: time.Now()}))
		if out := h.Consumer("backfill"); !strings.Contains(out, "1 objects listed") ||
			h.countImages(store.StatePending) != 1 {
			t.Errorf("token %q: %s", token, out)
		}
	}
}
