package store

import (
	"slices"
	"testing"
)

// What the policy changed is kept with the seal, whole and in order, byte for byte; each
// device has its own.
func TestAdjustments(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	var changes []Adjustment
	for range 3000 {
		changes = append(changes, Adjustment{"special_bits", "usr/bin/\xff\n", "04755", "0755"})
	}
	changes = append(changes, Adjustment{Rule: "device_node", Entry: "dev/null", From: "character device 1:3"})
	for n, want := range [][]Adjustment{changes, nil} {
		img, _, err := s.Enqueue(ctx, object(n))
		if err != nil {
			t.Fatal(err)
		}
		a := must[Attempt](t)(s.Begin(ctx, img.ID, StageDownload))
		must[Image](t)(s.FinishDownload(ctx, a, Blob{Path: "p"}))
		a = must[Attempt](t)(s.Begin(ctx, img.ID, StageUnpack))
		d := must[Device](t)(s.Reserve(ctx, a, Device{Kind: DeviceKindImage, Bytes: 1}))
		if _, err := s.Seal(ctx, Attempt{img.ID, StageUnpack, a.N - 1}, d, Tree{Device: d.ID}, want); err == nil {
			t.Error("an old attempt sealed")
		}
		d = must[Device](t)(s.Seal(ctx, a, d, Tree{Device: d.ID, Changed: len(want)}, want))
		have := must[[]Adjustment](t)(s.Adjustments(ctx, d.ID))
		if !slices.Equal(have, want) || d.State != DeviceSealed {
			t.Errorf("%d adjustments in state %s, want %d", len(have), d.State, len(want))
		}
	}
}
