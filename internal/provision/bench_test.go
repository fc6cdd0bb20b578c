package provision

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// BenchmarkActivation is a whole activation: the snapshot is reserved, made, activated
// and recorded, beside a number of active ones. It needs a thin pool.
func BenchmarkActivation(b *testing.B) {
	if err := devmapper.Probe(); err != nil {
		b.Skipf("needs a thin pool: %v", err)
	}
	for _, active := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("active=", active), func(b *testing.B) {
			h := hostWithPool(b)
			crowd := unpacked(b, h, "crowd")
			activate(b, h, crowd)
			for range active - 1 {
				_, err := h.Snapshot(b.Context(), crowd.ID)
				check(b, err)
			}
			var took []time.Duration
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				image := unpacked(b, h, fmt.Sprint("image ", n))
				b.StartTimer()
				began := time.Now()
				activate(b, h, image)
				took = append(took, time.Since(began))
				b.StopTimer()
				rows, err := h.store.SnapshotsOf(b.Context(), image.ID)
				check(b, err)
				_, err = h.RemoveSnapshot(b.Context(), rows[0])
				check(b, err)
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
		})
	}
}

// hostWithPool returns a host with a pool of its own.
func hostWithPool(b *testing.B) *Host {
	b.Helper()
	dir := b.TempDir()
	cfg := devmapper.Config{
		Name: "bench", UUID: uuid.NewString(), BlockSize: 64 << 10,
		Data: filepath.Join(dir, "data.img"), Metadata: filepath.Join(dir, "metadata.img"),
	}
	check(b, devmapper.CreateFiles(cfg.Data, cfg.Metadata, 1<<30, 64<<20))
	b.Cleanup(func() { check(b, devmapper.Detach(cfg)) })
	pool, err := devmapper.Create(cfg)
	check(b, err)
	b.Cleanup(func() { check(b, pool.Close()) })
	st, err := store.Open(b.Context(), filepath.Join(dir, "c.db"))
	check(b, err)
	b.Cleanup(func() { check(b, st.Close()) })
	return New(Config{}, NewRecorder(st, zerolog.Nop(), NewMetrics(prometheus.NewRegistry())), nil, pool)
}

// unpacked makes an image with a device, which is to be activated.
func unpacked(b *testing.B, h *Host, name string) store.Image {
	b.Helper()
	ctx := b.Context()
	img, _, err := h.store.Enqueue(ctx, store.Object{Bucket: "b", Key: name, ETag: "e"})
	check(b, err)
	t := &Task{Image: img}
	check(b, h.record.Begin(ctx, t, store.StageDownload))
	_, err = h.store.FinishDownload(ctx, t.Attempt, store.Blob{Path: "p"})
	check(b, err)
	check(b, h.record.Begin(ctx, t, store.StageUnpack))
	d, err := h.record.reserve(ctx, t,
		store.Device{Kind: store.DeviceKindImage, Bytes: 20 << 30, FSUUID: uuid.NewString()})
	check(b, err)
	check(b, h.pool.CreateThin(devmapper.ID(d.ID)))
	d, err = h.store.Seal(ctx, t.Attempt, d, store.Tree{Device: d.ID}, nil)
	check(b, err)
	img, err = h.store.FinishUnpack(ctx, t.Attempt, d)
	check(b, err)
	return img
}

// activate is the stage as the daemon runs it.
func activate(b *testing.B, h *Host, image store.Image) {
	b.Helper()
	t := &Task{Image: image}
	check(b, h.record.Begin(b.Context(), t, store.StageActivate))
	check(b, h.Activate(b.Context(), t))
}
