package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"imagemanager.internal/internal/awsmetrics"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

// scrape answers one scrape of a registry with one histogram.
func scrape(t *testing.T, accept string) *http.Response {
	t.Helper()
	reg := newRegistry(config{Policy: "strict", Bucket: "demo", QueueURL: someQueue})
	metric.Factory(reg).NewHistogram(metric.Histogram("wait_seconds", "Time waited.", 1, 2)).Observe(1.5)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	metricsHandler(reg).ServeHTTP(w, r)
	return w.Result()
}

func TestScrapeAsText(t *testing.T) {
	for _, tc := range []struct{ accept, kind, end string }{
		{"", "text/plain", "\n"},
		{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text", "\n# EOF\n"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			resp := scrape(t, tc.accept)
			defer resp.Body.Close()
			var b strings.Builder
			if _, err := io.Copy(&b, resp.Body); err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, tc.kind+";") {
				t.Errorf("the answer is %s", got)
			}
			if !strings.HasSuffix(b.String(), tc.end) {
				t.Error("the end is missing")
			}
			for _, series := range []string{
				`imagemanager_config_info{bucket="demo",policy="strict",queue="images"} 1`,
				`imagemanager_build_info{`, `imagemanager_wait_seconds_bucket{le="2`,
				"promhttp_metric_handler_requests_in_flight 1", "process_open_fds ", "go_goroutines ",
				`promhttp_metric_handler_requests_total{code="500"} 0`,
			} {
				if !strings.Contains(b.String(), "\n"+series) {
					t.Errorf("%s is missing in:\n%s", series, &b)
				}
			}
		})
	}
}

// A scraper that asks for protobuf gets native histograms.
func TestScrapeAsProtobuf(t *testing.T) {
	resp := scrape(t, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	defer resp.Body.Close()
	d := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header))
	for {
		var f dto.MetricFamily
		if err := d.Decode(&f); err != nil {
			t.Fatalf("no native histogram: %v", err)
		}
		if f.GetName() == "imagemanager_wait_seconds" && len(f.GetMetric()[0].GetHistogram().GetPositiveSpan()) > 0 {
			return
		}
	}
}

// everyMetric returns a registry as that of a daemon just after its start.
func everyMetric(t *testing.T) *prometheus.Registry {
	t.Helper()
	s, err := store.Open(t.Context(), databasePath(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	reg := newRegistry(config{Policy: "strict", Bucket: "demo", QueueURL: someQueue})
	provision.NewMetrics(reg)
	pipeline.NewMetrics(reg, s)
	pipeline.RegisterReady(reg, func() error { return nil })
	pipeline.RegisterConditions(reg, newReadiness().reasons)
	reconcile.NewMetrics(reg)
	awsmetrics.New(reg)
	metricsHandler(reg)
	return reg
}

// The first event of a counter without a series is no increase to Prometheus. So every
// series with known labels is there before anything has happened.
func TestEverySeriesIsThereFromTheStart(t *testing.T) {
	families, err := everyMetric(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered := map[string]bool{}
	for _, f := range families {
		gathered[f.GetName()] = true
	}
	later := map[string]bool{ // what is configured, or was looked at
		"imagemanager_queue_depth_messages": true, "imagemanager_stage_capacity": true,
		"imagemanager_disk_free_bytes": true, "imagemanager_disk_reserve_bytes": true,
		"imagemanager_database_rows": true, "imagemanager_kept_bytes": true, "imagemanager_kept_files": true,
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("(?m)^\\| `imagemanager_.*?\\|").FindAllString(string(page), -1)
	if len(names) < 30 {
		t.Fatalf("only %d rows of metrics are found", len(names))
	}
	for _, row := range names {
		for _, name := range regexp.MustCompile(`imagemanager_\w+`).FindAllString(row, -1) {
			if !gathered[name] && !later[name] {
				t.Errorf("%s has no series before its first event", name)
			}
		}
	}
}

// A metric's name, its help and its type are what Prometheus recommends.
func TestPromtoolHasNoComplaint(t *testing.T) {
	var text bytes.Buffer
	families, err := everyMetric(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	check := exec.CommandContext(t.Context(), promtool(t), "check", "metrics")
	check.Stdin = &text
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// promtool returns the path of Debian's promtool, which `make setup-test` fetches, or of
// the machine's own.
func promtool(t *testing.T) string {
	t.Helper()
	program := "../../.cache/prometheus/promtool"
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("promtool"); err != nil {
			t.Fatal("promtool is missing: make setup-test")
		}
	}
	return program
}
