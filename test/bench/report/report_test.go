package report

import "testing"

// A lap lasts from the one before, and this process has more than a MiB.
func TestReport(t *testing.T) {
	w := Start()
	w.Lap("a")
	w.Lap("b")
	if len(w.phases) != 2 || w.phases[1].Name != "b" || w.phases[0].Seconds <= 0 {
		t.Errorf("%+v", w.phases)
	}
	if rss, err := peak(); err != nil || rss < 1<<20 {
		t.Errorf("%d bytes, %v", rss, err)
	}
}
