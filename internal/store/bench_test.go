package store

import "testing"

// BenchmarkActivationEvents is what the journal adds to the making of a snapshot: the
// events of a whole activation, on images that have been through all stages.
func BenchmarkActivationEvents(b *testing.B) {
	s, err := Open(b.Context(), b.TempDir()+"/c.db")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var images []Image
	for i := range 100 {
		images = append(images, run(b, s, object(i)))
	}
	for i := 0; b.Loop(); i++ {
		img := images[i%len(images)]
		a := must[Attempt](b)(s.Begin(b.Context(), img.ID, StageActivate))
		d := must[Device](b)(s.Reserve(b.Context(), a,
			Device{Kind: DeviceKindSnapshot, Bytes: 1 << 20, Origin: img.Tree.Device}))
		must[Image](b)(s.FinishActivate(b.Context(), a, d, s.now(), "/dev/mapper/x"))
	}
}
