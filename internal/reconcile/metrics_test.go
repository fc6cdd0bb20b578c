package reconcile

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A reconcile that leaves something is timed, and not called a success.
func TestReconcileIsCounted(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	m.ended(time.Now().Add(-time.Second), 1)
	if n := testutil.ToFloat64(m.success); n != 0 {
		t.Errorf("success at %g although a problem is left", n)
	}
	m.did(RollBack)
	m.ended(time.Now(), 0)
	if age := float64(time.Now().Unix()) - testutil.ToFloat64(m.success); age > 60 {
		t.Errorf("the last success is %g s old", age)
	}
	if n := testutil.ToFloat64(m.actions.WithLabelValues("roll_back")); n != 1 {
		t.Errorf("%g devices were rolled back, want 1", n)
	}
	if n := testutil.CollectAndCount(m.actions); n != len(actionKinds) {
		t.Errorf("%d kinds of actions have series, want %d", n, len(actionKinds))
	}
}
