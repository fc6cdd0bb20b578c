package health

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

var update = flag.Bool("update", false, "write the golden file instead of comparing")

// troubles are what /readyz can tell of, each with what brings it about.
var troubles = []struct {
	name  Name
	cause func(*Monitor)
}{
	{Stuck, func(m *Monitor) {
		m.Pulse.began = time.Now().Add(-time.Hour)
		m.Pulse.Promise(Polling, -2*time.Minute)
	}},
	{Database, func(m *Monitor) { m.JournalFailed(syscall.ENOSPC) }},
	{PoolForeign, func(m *Monitor) { m.PoolProved(fmt.Errorf("data.img: %w", devmapper.ErrForeign)) }},
	{DiskLow, func(m *Monitor) { m.cfg.Disks, m.cfg.MinFreeDisk = []string{"/proc"}, 1<<30 }},
	{Settle, func(m *Monitor) {
		denied := &smithy.GenericAPIError{Code: "AccessDenied"}
		m.deps.Settling = func() (string, error) { return "DeleteMessage", denied }
	}},
	{PoolGone, func(m *Monitor) {
		m.deps.PoolStatus = func() (devmapper.Status, error) { return devmapper.Status{}, devmapper.ErrNotFound }
	}},
	{PoolReadOnly, poolIs(devmapper.Status{Mode: devmapper.ModeReadOnly, TotalData: 1, TotalMetadata: 1})},
	{PoolReadOnly, poolIs(devmapper.Status{
		Mode: devmapper.ModeReadWrite, NeedsCheck: true, TotalData: 1,
		TotalMetadata: 1,
	})},
	{PoolLow, poolIs(devmapper.Status{Mode: devmapper.ModeReadWrite, UsedData: 95, TotalData: 100, TotalMetadata: 1})},
	{PoolLow, poolIs(devmapper.Status{Mode: devmapper.ModeReadWrite, TotalData: 1, UsedMetadata: 4, TotalMetadata: 5})},
	{Bucket, func(m *Monitor) { m.Breaker.noteLook(fmt.Errorf("%w: NoSuchBucket", download.ErrNoBucket)) }},
	{Alone, func(m *Monitor) { m.SetAlone(7) }},
	{Receive, func(m *Monitor) { m.Polled(awserr.ErrNoCredentials) }},
	{Receive, func(m *Monitor) { m.Polled(&smithy.GenericAPIError{Code: "AccessDenied"}) }},
	{Receive, func(m *Monitor) { m.Polled(&smithy.GenericAPIError{Code: "QueueDoesNotExist"}) }},
	{Receive, func(m *Monitor) { m.Polled(&smithy.GenericAPIError{Code: "RequestThrottled"}) }},
	{Receive, func(m *Monitor) { m.Polled(syscall.ECONNREFUSED) }},
	{Receive, func(m *Monitor) { m.Polled(errors.New("no SQS")) }},
	{Outage, func(m *Monitor) {
		for image := range int64(StreakLength) {
			m.Breaker.Failed(store.StageDownload, image+1, fmt.Errorf("%w: AccessDenied", download.ErrDenied))
		}
	}},
	{ForeignEvents, func(m *Monitor) { m.NoteForeign(queue.Object{Bucket: "other", Key: "images/a.tar"}) }},
}

func poolIs(s devmapper.Status) func(*Monitor) {
	return func(m *Monitor) { m.deps.PoolStatus = func() (devmapper.Status, error) { return s, nil } }
}

// A reviewer sees what /readyz says: of each condition, why, and what to do. The remedies
// of an outage are the pipeline's.
func TestGoldenReadyz(t *testing.T) {
	var text strings.Builder
	seen := map[Name]bool{Starting: true, Recovering: true, Stopping: true} // the daemon's own
	for _, tr := range troubles {
		m := newMonitor(t)
		m.Capacity, m.cfg.MinFreeData, m.cfg.MinFreeMetadata, m.cfg.StateDir = m.checkCapacity, 0.1, 0.25, "/state"
		m.deps.Remedy = func(error) string { return "REMEDY" }
		m.Breaker.remedy = m.deps.Remedy
		m.deps.Settling = func() (string, error) { return "", nil }
		m.deps.OnPoolStatus = func(devmapper.Status) {}
		poolIs(devmapper.Status{Mode: devmapper.ModeReadWrite, TotalData: 1, TotalMetadata: 1})(m)
		tr.cause(m)
		m.AcceptingWork()
		reasons := m.Reasons()
		if reasons[tr.name] == nil {
			t.Errorf("%s is not active: %v", tr.name, reasons)
			continue
		}
		seen[tr.name] = true
		fmt.Fprintf(&text, "%s: %v\n", tr.name, reasons[tr.name])
	}
	for _, name := range names {
		if !seen[name] {
			t.Errorf("nothing brings %s about", name)
		}
	}
	same(t, "testdata/readyz.txt", text.String())
}

// same compares a text with the golden file, or writes it.
func same(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil || string(golden) != text {
		t.Errorf("%s differs (`make docs` writes it again), %v:\n%s", path, err, text)
	}
}
