package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"imagemanager.internal/internal/metric"
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
