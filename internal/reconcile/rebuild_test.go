package reconcile

import (
	"os"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
)

// sealOf is the seal of an image on a device.
func sealOf(image, device int64, key string) store.SealRecord {
	return store.NewSealRecord(store.Pool{UUID: "p", Name: "images"},
		store.Image{ID: image, Object: store.Object{Bucket: "b", Key: key, ETag: "e"}, CreatedAt: time.Unix(1, 0).
			UTC()},
		store.Blob{SHA256: "none"}, store.Device{ID: device, Bytes: 1 << 30, FSUUID: key}, store.Tree{Device: device})
}

// Each image is adopted once, from the newest device that claims to be it, and a snapshot
// by the device that the pool says it was made of, whatever is on it.
func TestResolve(t *testing.T) {
	r := newReconciler(t)
	proven := func(s store.SealRecord) Candidate {
		return Candidate{Device: s.Device, Is: FoundImage, seal: s, sealed: true, fsUUID: s.FSUUID}
	}
	snapshot := func(device int64, s store.SealRecord) Candidate { return Candidate{Device: device, origin: s.Device} }
	a, b := sealOf(1, 1, "a"), sealOf(2, 3, "b")
	for name, c := range map[string]struct {
		found []Candidate
		want  string
	}{
		"image and snapshots": {
			[]Candidate{proven(a), snapshot(2, a), proven(b), snapshot(4, b), snapshot(5, a)},
			"image 1, snapshot 1, image 2, snapshot 2, snapshot 1",
		},
		"snapshot before image": {[]Candidate{snapshot(0, a), proven(a)}, "snapshot 1, image 1"},
		"of no proven image":    {[]Candidate{snapshot(2, a), proven(b)}, "unproven 0, image 2"},
		"same image id": {
			[]Candidate{proven(a), snapshot(2, a), proven(sealOf(1, 9, "other"))},
			"unproven 0, unproven 0, image 1",
		},
		"same object": {[]Candidate{proven(a), proven(sealOf(7, 9, "a"))}, "unproven 0, image 7"},
		"refused before": {
			[]Candidate{{Device: 1, Is: FoundUnproven, Why: "x", seal: a}, snapshot(2, a)},
			"unproven 0, unproven 0",
		},
	} {
		if err := r.resolve(t.Context(), c.found); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range c.found {
			got = append(got, f.Is+" "+string('0'+rune(f.Image)))
			if (f.Is == FoundUnproven) != (f.Why != "") {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
}

// Ids of images that are lost are not given to others: neither those of seals that were
// not adopted, nor those of archives.
func TestMaxIDs(t *testing.T) {
	r := newReconciler(t)
	found := []Candidate{
		{Device: 4, Is: FoundImage, Image: 2, Archive: true, seal: sealOf(2, 4, "a")},
		{Device: 40, Is: FoundUnproven, seal: sealOf(6, 40, "b")},
	}
	if got, err := r.maxIDs(found); err != nil || got != (store.MaxIDs{Device: 40, Image: 6}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range []string{
		"2.tar", "8.tar", "9.tar.part", "notes.txt", "99999999999999999999.tar",
		"9007199254740993.tar",
	} {
		if err := os.WriteFile(r.archives.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.maxIDs(found); err != nil || got != (store.MaxIDs{Device: 40, Image: 9}) {
		t.Errorf("%+v, %v", got, err)
	}
	if files, err := r.Unclaimed(found); err != nil || len(files) != 5 ||
		strings.Contains(strings.Join(files, " "), "/2.tar") {
		t.Errorf("unclaimed: %q, %v", files, err)
	}
}
