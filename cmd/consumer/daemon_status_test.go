package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/store"
)

// atWork is what a pipeline with one image and a low pool says.
func atWork() *pipeline.Status {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	quarantined := int64(2)
	return &pipeline.Status{
		Jobs: []pipeline.JobStatus{{
			Image: 7, Key: "images/<a>.tar", Stage: store.StageUnpack, State: "working", Attempt: 3, Since: at,
			Done: 1 << 20, Total: 4 << 20,
		}},
		Stages: []pipeline.StageStatus{{Name: store.StageUnpack, Workers: 2, Busy: 1}},
		Queue:  pipeline.QueueStatus{Held: 1, Permits: 8},
		Pool: &devmapper.Status{
			Mode: devmapper.ModeReadWrite, UsedData: 95, TotalData: 100, UsedMetadata: 1, TotalMetadata: 10,
		},
		Images:      map[store.State]int{store.StatePending: 1, store.StateActive: 40},
		Quarantined: &quarantined,
		Reconcile:   &pipeline.ReconcileStatus{Ended: at, TookMS: 12, Error: "device 5 is in use"},
		Activating:  &pipeline.ActivatingStatus{Done: 12, Total: 40},
	}
}

// statusOf returns the page of a daemon, its build and process replaced.
func statusOf(t *testing.T, f fixed) string {
	t.Helper()
	cfg := config{
		Policy: "strict", Bucket: "b", Prefix: "images/", QueueURL: someQueue,
		Endpoint: "http://user:secret@localhost:4566",
		StateDir: "/var/lib/consumer",
	}
	p := &statusPage{cfg: cfg, started: time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC), ready: following(f)}
	w := ask(t, p, "/status")
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("it is %s", kind)
	}
	var s daemonStatus
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.Go == "" || s.Version == "" || s.PID != os.Getpid() {
		t.Errorf("which build and process: %+v", s)
	}
	s.Version, s.Revision, s.Go, s.PID = "v1.2.3", "0123abc", "go1.26", 4711
	var text strings.Builder
	if err := printJSON(&text, s); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// Programs depend on the form of the page.
func TestStatusPage(t *testing.T) {
	const golden = "testdata/status.json"
	have := statusOf(t, fixed{
		reasons: health.Reasons{health.PoolLow: errors.New("thin pool is low on space")}, status: atWork(),
	})
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("%s differs. The page is:\n%s", golden, have)
	}
	if strings.Contains(have, "secret") {
		t.Error("it tells a secret")
	}
}

func TestStatusWhileStarting(t *testing.T) {
	s := statusOf(t, fixed{reasons: health.Reasons{health.Starting: errStarting}})
	if !strings.Contains(s, `"pipeline": null`) || !strings.Contains(s, errStarting.Error()) {
		t.Error(s)
	}
}

// paths returns the paths of all fields of a JSON value.
func paths(v any, prefix string) []string {
	var all []string
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			path := strings.TrimPrefix(prefix+"."+name, ".")
			all = append(append(all, path), paths(v[name], path)...)
		}
	case []any:
		for _, e := range v {
			all = append(all, paths(e, prefix+"[]")...)
		}
	}
	return all
}

// Operators find every field of the page in the table of docs/operating.md.
func TestStatusIsDocumented(t *testing.T) {
	golden, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var page any
	if err := json.Unmarshal(golden, &page); err != nil {
		t.Fatal(err)
	}
	operating, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9_.\\[\\]]+)`").FindAllStringSubmatch(string(operating), -1) {
		documented[m[1]] = true
	}
	for _, path := range paths(page, "") {
		if !documented[path] && !strings.HasPrefix(path, "pipeline.images.") {
			t.Errorf("docs/operating.md does not name %s", path)
		}
	}
}
