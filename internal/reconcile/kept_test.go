package reconcile

import (
	"slices"
	"testing"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// The file of an image that was refused is found although its image is not read with the
// others, and removed once nobody has worked on it between the readings.
func TestArchiveOfRefused(t *testing.T) {
	r := newReconciler(t)
	ctx := t.Context()
	img, _, err := r.store.Enqueue(ctx, store.Object{Bucket: "b", Key: "images/a.tar", ETag: "e"})
	check(t, err)
	a, err := r.store.Begin(ctx, img.ID, store.StageDownload)
	check(t, err)
	_, err = r.store.Fail(ctx, a, store.Failure{Verdict: string(store.StateVanished), Reason: "test"})
	check(t, err)
	c := comparison{archives: []string{provision.ArchiveName(img.ID), "4711.tar", "notes.txt"}}
	for _, rd := range []*reading{&c.before, &c.after} {
		*rd, err = r.readJournal(ctx)
		check(t, err)
		if len(rd.images) != 0 {
			t.Errorf("read at once: %v", rd.images)
		}
		check(t, r.readImagesOf(ctx, c.archives, *rd))
	}
	actions := r.diffArchives(c)
	removes := func(act Action) bool { return act.Kind == RemoveFile && act.Image == img.ID }
	if len(actions) != 3 || !slices.ContainsFunc(actions, removes) {
		t.Errorf("%+v, want one file removed, and two reported", actions)
	}
	c.before.images[img.ID] = store.Image{}
	if slices.ContainsFunc(r.diffArchives(c), removes) {
		t.Error("it is removed although its image has changed")
	}
}
