package main

import (
	"context"
	"net/http"
	"os"
	"runtime"
	"time"

	build "github.com/prometheus/common/version"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
)

// statusTimeout bounds what /status waits for the database.
const statusTimeout = 2 * time.Second

// daemonStatus is what /status answers, see docs/operating.md. It has no secrets: whoever
// reaches LISTEN_ADDR may read it.
type daemonStatus struct {
	Version    string            `json:"version"`
	Revision   string            `json:"revision"` // of the source
	Go         string            `json:"go"`
	PID        int               `json:"pid"`
	Started    time.Time         `json:"started"`
	StateDir   string            `json:"state_dir"`
	Policy     string            `json:"policy"`
	Bucket     string            `json:"bucket"`
	Prefix     string            `json:"prefix"`
	Queue      string            `json:"queue_url"`
	Ready      bool              `json:"ready"`
	Conditions []conditionStatus `json:"conditions"`
	Pipeline   *pipeline.Status  `json:"pipeline"` // nil until it works
}

// conditionStatus is a condition of /readyz.
type conditionStatus struct {
	Name   health.Name `json:"name"`
	Active bool        `json:"active"`
	Text   string      `json:"text,omitempty"` // why, and what to do
}

func conditionStatuses(reasons health.Reasons) []conditionStatus {
	var all []conditionStatus
	for _, c := range reasons.Conditions() {
		s := conditionStatus{Name: c.Name, Active: c.Err != nil}
		if s.Active {
			s.Text = c.Err.Error()
		}
		all = append(all, s)
	}
	return all
}

// statusPage answers /status.
type statusPage struct {
	cfg     config
	started time.Time
	ready   *readiness
}

func (p *statusPage) status(ctx context.Context) daemonStatus {
	reasons := p.ready.reasons()
	return daemonStatus{
		Version: metric.Version(), Revision: build.GetRevision(), Go: runtime.Version(),
		PID: os.Getpid(), Started: p.started, StateDir: p.cfg.StateDir,
		Policy: p.cfg.Policy, Bucket: p.cfg.Bucket, Prefix: p.cfg.Prefix, Queue: p.cfg.QueueURL,
		Ready: reasons.Err() == nil, Conditions: conditionStatuses(reasons), Pipeline: p.ready.status(ctx),
	}
}

// ServeHTTP answers with JSON.
func (p *statusPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = printJSON(w, p.status(ctx)) // fails if nobody reads it any more
}
