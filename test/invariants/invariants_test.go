package invariants

import (
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// sound is a host with one active image.
func sound(t *testing.T) Host {
	t.Helper()
	blob := &store.Blob{Path: filepath.Join("/s", blobs, "b"), SHA256: "b"}
	tree := &store.Tree{Device: 1, Digest: "sha256:m"}
	events := []store.Event{{Kind: store.EventQueued}}
	for i, stage := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		n := int64(i + 1)
		events = append(events, store.Event{Kind: store.EventBegun, Stage: stage, Attempt: n},
			store.Event{Kind: store.EventDone, Stage: stage, Attempt: n})
	}
	events[2].Detail.Blob, events[4].Detail.Tree = blob, tree
	p, err := store.Fold(store.Progress{}, events...)
	if err != nil || p.State != store.StateActive {
		t.Fatal(p, err)
	}
	return Host{
		StateDir: "/s", Images: []store.Image{{ID: 1, Progress: p}}, Events: map[int64][]store.Event{1: events},
		Devices: []store.Device{
			{ID: 1, Kind: store.DeviceKindImage, State: store.DeviceReady},
			{ID: 2, Kind: store.DeviceKindSnapshot, State: store.DeviceReady},
		},
		Thins: []devmapper.ID{1, 2}, Active: []devmapper.ActiveDevice{{ID: 2, Name: "s"}},
		Pool:  devmapper.Status{Mode: devmapper.ModeReadWrite},
		Files: []string{blob.Path, filepath.Join("/s", manifests, "m")},
	}
}

// Whatever is wrong is told, once, and nothing else.
func TestBroken(t *testing.T) {
	if b := sound(t).Broken(); len(b) > 0 {
		t.Fatalf("a sound host: %q", b)
	}
	for want, spoil := range map[string]func(h *Host){
		"the pool is not sound":                   func(h *Host) { h.Pool.HeldRoot = true },
		"device 1 is sealed":                      func(h *Host) { h.Devices[0].State = store.DeviceSealed },
		"thin device 3 is in the pool and not":    func(h *Host) { h.Thins = append(h.Thins, 3) },
		"thin device 1 is in the journal and not": func(h *Host) { h.Thins = h.Thins[1:] },
		"active device i should not be": func(h *Host) {
			h.Active = append(h.Active,
				devmapper.ActiveDevice{ID: 1, Name: "i"})
		},
		"active device s should not be":        func(h *Host) { h.Active[0].Suspended = true },
		"snapshot 2 is not active":             func(h *Host) { h.Active = nil },
		"image 1: fold":                        func(h *Host) { h.Images[0].Failures = 1 },
		"image 1: fold {\"state\":\"pending\"": func(h *Host) { h.Events[1] = h.Events[1][:3] },
		"file /s/blobs/x belongs to no image":  func(h *Host) { h.Files = append(h.Files, "/s/blobs/x") },
		"file /s/manifests/m is missing":       func(h *Host) { h.Files = h.Files[:1] },
	} {
		h := sound(t)
		spoil(&h)
		if b := h.Broken(); len(b) != 1 || !strings.HasPrefix(b[0], want) {
			t.Errorf("%q, want %q", b, want)
		}
	}
}
