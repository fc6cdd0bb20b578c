package reconcile

import (
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newReconciler returns one without a pool, and without jobs.
func newReconciler(t *testing.T) *Reconciler {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	check(t, err)
	t.Cleanup(func() { st.Close() })
	archives, err := download.New(nil, download.Config{Dir: filepath.Join(t.TempDir(), "blobs")})
	check(t, err)
	reg := prometheus.NewRegistry()
	record := provision.NewRecorder(st, zerolog.Nop(), provision.NewMetrics(reg))
	return New(Deps{
		Store: st, Archives: archives, Host: provision.New(provision.Config{}, record, archives, nil),
		Recorder: record, Log: zerolog.Nop(), Metrics: NewMetrics(reg),
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
