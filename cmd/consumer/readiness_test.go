package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
)

// ask returns how a handler answers a GET.
func ask(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody))
	return w
}

// fixed is a daemon that stays as it is.
type fixed struct {
	reasons health.Reasons
	stuck   error
	status  *pipeline.Status

	activated, toActivate int // snapshots
}

func (f fixed) Reasons() health.Reasons { return f.reasons }
func (f fixed) Stuck() error            { return f.stuck }

func (f fixed) Activating() (done, total int) { return f.activated, f.toActivate }

func (f fixed) Status(context.Context) *pipeline.Status { return f.status }

// following returns the readiness of a daemon.
func following(f fixed) *readiness {
	r := newReadiness()
	r.follow(f)
	return r
}

// troubled is a daemon with two troubles; one has a text of two lines.
func troubled() *readiness {
	return following(fixed{reasons: health.Reasons{
		health.PoolLow: errors.New("pool is low"), health.DiskLow: errors.New("disk is low:\nmake room"),
	}})
}

// A daemon that must be started again says so; one in trouble lives.
func TestHealthz(t *testing.T) {
	stuck := following(fixed{stuck: errors.New("stuck: a loop")})
	for name, c := range map[string]struct {
		daemon *readiness
		code   int
		text   string
	}{
		"it starts": {newReadiness(), http.StatusOK, "ok\n"},
		"troubled":  {troubled(), http.StatusOK, "ok\n"},
		"stuck":     {stuck, http.StatusServiceUnavailable, "stuck: a loop\n"},
	} {
		w := ask(t, adminHandler(adminPages(config{}, prometheus.NewRegistry(), c.daemon)), "/healthz")
		if w.Code != c.code || w.Body.String() != c.text {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Body, c.code, c.text)
		}
	}
}

func TestReadyz(t *testing.T) {
	well := following(fixed{})
	for name, c := range map[string]struct {
		daemon *readiness
		code   int
		text   string
	}{
		"it starts": {newReadiness(), http.StatusServiceUnavailable, errStarting.Error() + "\n"},
		"troubled":  {troubled(), http.StatusServiceUnavailable, "disk is low:\nmake room\n"},
		"well":      {well, http.StatusOK, "ok\n"},
	} {
		if w := ask(t, c.daemon, "/readyz"); w.Code != c.code || w.Body.String() != c.text {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Body, c.code, c.text)
		}
		w := ask(t, c.daemon, "/readyz?verbose")
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if want := len(health.Reasons{}.Conditions()) + 1; w.Code != c.code || len(lines) != want {
			t.Errorf("%s, verbose: %d with %d lines, want %d with %d", name, w.Code, len(lines), c.code, want)
		}
	}
}

// A daemon that still activates snapshots takes work, and says how far it is.
func TestReadyzWhileActivating(t *testing.T) {
	after := following(fixed{activated: 312, toActivate: 1000})
	for target, want := range map[string]string{
		"/readyz":         "ok\nactivating snapshots: 312 of 1000\n",
		"/readyz?verbose": "readyz check passed\nactivating snapshots: 312 of 1000\n",
	} {
		if w := ask(t, after, target); w.Code != http.StatusOK || !strings.HasSuffix(w.Body.String(), want) {
			t.Errorf("%s: %d %q, want %q at its end", target, w.Code, w.Body, want)
		}
	}
}

func TestReadyzVerbose(t *testing.T) {
	text := ask(t, troubled(), "/readyz?verbose").Body.String()
	for _, line := range []string{
		"[+]starting ok\n", "[-]disk_low failed: disk is low: make room\n", "[-]pool_low failed: pool is low\n",
		"\nreadyz check failed\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is missing in:\n%s", line, text)
		}
	}
}

// Every condition has its series at every scrape, whether active or not.
func TestConditionMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	pipeline.RegisterConditions(reg, troubled().reasons)
	text := ask(t, metricsHandler(reg), "/metrics").Body.String()
	for name, want := range map[health.Name]string{health.DiskLow: "1", health.PoolLow: "1", health.Starting: "0"} {
		line := fmt.Sprintf("imagemanager_condition_active{condition=%q} %s\n", name, want)
		if !strings.Contains(text, line) {
			t.Errorf("%s is missing in:\n%s", line, text)
		}
	}
	if n := strings.Count(text, "\nimagemanager_condition_active{"); n != len(health.Reasons{}.Conditions()) {
		t.Errorf("%d series", n)
	}
}
