package metric

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A histogram has the program's prefix, its buckets, and a native form.
func TestHistogram(t *testing.T) {
	reg := prometheus.NewRegistry()
	Factory(reg).NewHistogram(Histogram("wait_seconds", "Time waited.", 1, 2)).Observe(1.5)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %v", families, err)
	}
	if name := families[0].GetName(); name != "imagemanager_wait_seconds" {
		t.Errorf("it is called %s", name)
	}
	h := families[0].GetMetric()[0].GetHistogram()
	if len(h.GetBucket()) != 2 {
		t.Errorf("%d buckets", len(h.GetBucket()))
	}
	if len(h.GetPositiveSpan()) != 1 {
		t.Errorf("no native histogram: %v", h)
	}
}
