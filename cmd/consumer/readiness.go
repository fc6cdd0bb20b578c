package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
)

// What /readyz says while the daemon takes no work by itself.
var (
	errStarting   = errors.New("starting: the database and the pool are opened")
	errRecovering = errors.New("recovering: journal, pool and files are compared; work begins when they agree")
	errStopping   = errors.New("stopping: running stages may finish, and nothing new is taken")
)

// source is what tells how the daemon is.
type source interface {
	Reasons() health.Reasons       // why no work is taken
	Stuck() error                  // why it must be started again
	Activating() (done, total int) // snapshots beside the work; zeros when all were tried

	Status(context.Context) *pipeline.Status // nil before the pipeline works
}

// only is a source of one reason, while the pipeline has nothing to tell.
type only struct {
	name health.Name
	why  error
}

func (o only) Reasons() health.Reasons { return health.Reasons{o.name: o.why} }
func (o only) Stuck() error            { return nil }
func (o only) Activating() (_, _ int)  { return 0, 0 }

func (o only) Status(context.Context) *pipeline.Status { return nil }

// working is the source while the pipeline works.
type working struct {
	*pipeline.Pipeline
	stopped func() error // nil until the daemon is to stop
}

func (w working) Stuck() error { return w.Health().Stuck() }

func (w working) Activating() (done, total int) { return w.Health().Activating() }

func (w working) Reasons() health.Reasons {
	why := w.Health().Reasons()
	if w.stopped() != nil {
		why[health.Stopping] = errStopping
	}
	return why
}

// readiness knows why no work is taken, from the start of the daemon to its end. Whom it
// asks changes on the way.
type readiness struct{ ask atomic.Pointer[source] }

// newReadiness returns that of a daemon that starts.
func newReadiness() *readiness {
	r := &readiness{}
	r.follow(only{health.Starting, errStarting})
	return r
}

// follow asks somebody else from now on.
func (r *readiness) follow(s source) { r.ask.Store(&s) }

// reasons returns why no work is taken.
func (r *readiness) reasons() health.Reasons { return (*r.ask.Load()).Reasons() }

// status returns what the pipeline does; nil before it works.
func (r *readiness) status(ctx context.Context) *pipeline.Status { return (*r.ask.Load()).Status(ctx) }

// why returns the first reason; nil while work is taken.
func (r *readiness) why() error { return r.reasons().Err() }

// activating says how far the activation of snapshots is, which goes on beside the work;
// empty when it is over.
func (r *readiness) activating() string {
	done, total := (*r.ask.Load()).Activating()
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("activating snapshots: %d of %d", done, total)
}

// stuck returns why the daemon must be started again; nil if it need not be.
func (r *readiness) stuck() error { return (*r.ask.Load()).Stuck() }

// alive answers 200, or 503 with the reason if the daemon must be started again.
func (r *readiness) alive(w http.ResponseWriter, _ *http.Request) {
	if err := r.stuck(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// ServeHTTP answers 200 while work is taken, and otherwise 503 with the reason. With
// ?verbose it answers a line for each condition, in the form of Kubernetes. What goes on
// beside the work has a line of its own.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	reasons := r.reasons()
	why := reasons.Err()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if why != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	switch {
	case req.URL.Query().Has("verbose"):
		writeConditions(w, reasons)
	case why != nil:
		fmt.Fprintln(w, why)
	default:
		fmt.Fprintln(w, "ok")
	}
	if beside := r.activating(); beside != "" {
		fmt.Fprintln(w, beside)
	}
}

// writeConditions writes a line for each condition, and one for all.
func writeConditions(w io.Writer, reasons health.Reasons) {
	result := "passed"
	for _, c := range reasons.Conditions() {
		if c.Err == nil {
			fmt.Fprintf(w, "[+]%s ok\n", c.Name)
			continue
		}
		result = "failed"
		fmt.Fprintf(w, "[-]%s failed: %s\n", c.Name, unbroken.Replace(c.Err.Error()))
	}
	fmt.Fprintln(w, "readyz check", result)
}

// unbroken keeps a text on its line: an error may have several, and the key of an object
// any character.
var unbroken = strings.NewReplacer("\n", " ", "\r", " ")
