package pipeline

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Status is what a pipeline does at one moment.
type Status struct {
	Jobs   []JobStatus       `json:"jobs"`
	Stages []StageStatus     `json:"stages"`
	Queue  QueueStatus       `json:"queue"`
	Pool   *devmapper.Status `json:"pool"` // at the last look; nil before the first

	Images      map[store.State]int `json:"images"`         // nil if they cannot be read
	Quarantined *int64              `json:"quarantined"`    // messages; nil if they cannot be read
	Reconcile   *ReconcileStatus    `json:"last_reconcile"` // nil before the first
	Activating  *ActivatingStatus   `json:"activating"`     // nil when that is over
}

// JobStatus is an image on its way through the stages.
type JobStatus struct {
	Image   int64       `json:"image_id"`
	Key     string      `json:"s3_key"` // empty for a moment at the beginning
	Stage   store.Stage `json:"stage"`  // the stage it is in, or was in last; empty before the first
	State   jobState    `json:"state"`
	Attempt int64       `json:"attempt"`     // of the image, over all stages
	Since   time.Time   `json:"since"`       // in this stage and state
	Done    int64       `json:"done_bytes"`  // of the current attempt at the stage
	Total   int64       `json:"total_bytes"` // 0 if it is not known
}

// jobState says what keeps a job where it is.
type jobState string

const (
	jobWaiting jobState = "waiting" // for a worker of the next stage, or of the first
	jobWorking jobState = "working" // a worker is busy with it
	jobBlocked jobState = "blocked" // done here, and keeps its worker until the next stage has room
	jobStuck   jobState = "stuck"   // given up by its worker: the stage does not come back
)

// StageStatus counts the workers of a stage. Those neither busy nor blocked are idle.
type StageStatus struct {
	Name    store.Stage `json:"name"`
	Workers int         `json:"workers"`
	Busy    int         `json:"busy"`
	Blocked int         `json:"blocked"` // the next stage has no room
}

// QueueStatus counts messages.
type QueueStatus struct {
	Held    int `json:"held"`    // their images are worked on
	Permits int `json:"permits"` // that may be held at once
}

// ReconcileStatus is how a comparison of journal, pool and files ended; that of the start
// counts.
type ReconcileStatus struct {
	Ended  time.Time `json:"ended"`
	TookMS int64     `json:"took_ms"`
	Error  string    `json:"error,omitempty"` // what is left to be done
}

// ActivatingStatus counts the snapshots that the start found inactive.
type ActivatingStatus struct {
	Done  int `json:"done"` // tried: active, or a problem that last_reconcile has
	Total int `json:"total"`
}

// Status reads the journal; all else is at hand. What cannot be read is missing.
func (p *Pipeline) Status(ctx context.Context) *Status {
	s := &Status{
		Jobs: p.jobs.list(), Pool: p.health.Pool(), Reconcile: p.reconciled.Load(),
		Queue: QueueStatus{Held: int(p.messages.held.Load()), Permits: cap(p.messages.permits)},
	}
	for _, st := range p.table {
		s.Stages = append(s.Stages, stageStatus(st, s.Jobs))
	}
	if done, total := p.activations.progress(); total > 0 {
		s.Activating = &ActivatingStatus{done, total}
	}
	if size, err := p.store.Size(ctx); err == nil {
		s.Quarantined = &size.Quarantined
	}
	if counts, err := p.store.Counts(ctx); err == nil {
		s.Images = map[store.State]int{}
		for _, state := range store.States() {
			s.Images[state] = counts[state]
		}
	}
	return s
}

func stageStatus(st stage, jobs []JobStatus) StageStatus {
	s := StageStatus{Name: st.name, Workers: st.workers}
	for _, job := range jobs {
		switch {
		case job.Stage != st.name:
		case job.State == jobWorking:
			s.Busy++
		case job.State == jobBlocked:
			s.Blocked++
		}
	}
	return s
}

// place is where a job is, for others than its owner.
type place struct {
	stage    store.Stage
	state    jobState
	since    time.Time
	key      string
	attempt  int64
	progress *provision.Progress
}

// moved notes where a job is now. Its owner calls it.
func (js *jobs) moved(job *Job, st store.Stage, state jobState) {
	js.mu.Lock()
	defer js.mu.Unlock()
	job.place.stage, job.place.state, job.place.since = st, state, time.Now()
	job.place.key, job.place.attempt = job.Image.Key, job.Image.Attempt
}

// list returns the jobs, in the order of their images.
func (js *jobs) list() []JobStatus {
	js.mu.Lock()
	defer js.mu.Unlock()
	list := make([]JobStatus, 0, len(js.byImage))
	for id, job := range js.byImage {
		at := job.place
		s := JobStatus{Image: id, Key: at.key, Stage: at.stage, State: at.state, Attempt: at.attempt, Since: at.since}
		s.Done, s.Total = at.progress.Bytes()
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b JobStatus) int { return cmp.Compare(a.Image, b.Image) })
	return list
}

// lastReconcile is how the last reconcile ended; nil before the first.
type lastReconcile struct {
	atomic.Pointer[ReconcileStatus]
}

// ended notes the end of a reconcile that began then.
func (l *lastReconcile) ended(began time.Time, err error) {
	r := &ReconcileStatus{Ended: time.Now(), TookMS: time.Since(began).Milliseconds()}
	if err != nil {
		r.Error = err.Error()
	}
	l.Store(r)
}
