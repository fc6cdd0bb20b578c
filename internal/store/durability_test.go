package store

import (
	"slices"
	"testing"
	"time"
)

// An image waits six times for the disk, of it twice for its snapshot: for what it is,
// where it is, the intent of each device, the seal, and the end. The rest is in order.
func TestCommitsOnDisk(t *testing.T) {
	s := newStore(t)
	var commits []bool // whether synced
	s.Observe = func(_ time.Duration, synced bool, _ error) { commits = append(commits, synced) }
	img := run(t, s, object(1))
	const on, no = true, false
	want := []bool{
		on,     // queued
		no, on, // download
		no, on, no, no, no, on, no, // unpack: begun, reserved, created, formatted, filled, sealed, done
		no, on, on, // activate: begun, reserved, created and done
	}
	if !slices.Equal(commits, want) {
		t.Errorf("synced are %v, want %v", commits, want)
	}
	if events := must[[]Event](t)(s.History(t.Context(), img.ID)); len(events) != len(want)+1 {
		t.Errorf("%d events in %d transactions", len(events), len(commits))
	}
	// Whatever ends or removes something waits for the disk.
	commits = nil
	a := must[Attempt](t)(s.Begin(t.Context(), img.ID, StageActivate))
	must[Image](t)(s.Fail(t.Context(), a, Failure{Verdict: "retry"}))
	a = must[Attempt](t)(s.Begin(t.Context(), img.ID, StageActivate))
	must[Image](t)(s.Undo(t.Context(), a, ""))
	a = must[Attempt](t)(s.Begin(t.Context(), img.ID, StageActivate))
	must[Image](t)(s.HandOff(t.Context(), a))
	if err := s.SetDeviceState(t.Context(), img.Tree.Device, DeviceDeleting); err != nil {
		t.Fatal(err)
	}
	if want := []bool{no, on, no, on, no, on, on}; !slices.Equal(commits, want) {
		t.Errorf("synced are %v, want %v", commits, want)
	}
}

// The connection commits as each transaction asked, whatever the one before it did.
func TestDurabilityOfTheConnection(t *testing.T) {
	s := newStore(t)
	for _, as := range []durability{synced, ordered, ordered, synced, ordered} {
		var level int
		err := s.inTxAs(t.Context(), as, func(tx transaction) error {
			return tx.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&level)
		})
		if want := map[durability]int{synced: 2, ordered: 1}[as]; err != nil || level != want {
			t.Errorf("%s: synchronous = %d, want %d; %v", as, level, want, err)
		}
	}
}
