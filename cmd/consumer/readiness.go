package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"imagemanager.internal/internal/pipeline/health"
)

// What /readyz says while the daemon takes no work by itself.
var (
	errStarting   = errors.New("starting: the database and the pool are opened")
	errRecovering = errors.New("recovering: journal, pool and files are compared; work begins when they agree")
	errStopping   = errors.New("stopping: running stages may finish, and nothing new is taken")
)

// readiness knows why no work is taken, from the start of the daemon to its end. Whom it
// asks changes on the way.
type readiness struct {
	ask atomic.Pointer[func() health.Reasons]
}

// newReadiness returns that of a daemon that starts.
func newReadiness() *readiness {
	r := &readiness{}
	r.is(health.Starting, errStarting)
	return r
}

// is makes one condition the only one that is active.
func (r *readiness) is(name health.Name, why error) {
	r.follow(func() health.Reasons { return health.Reasons{name: why} })
}

// follow asks somebody else from now on.
func (r *readiness) follow(ask func() health.Reasons) { r.ask.Store(&ask) }

// reasons returns why no work is taken.
func (r *readiness) reasons() health.Reasons { return (*r.ask.Load())() }

// why returns the first reason; nil while work is taken.
func (r *readiness) why() error { return r.reasons().Err() }

// ServeHTTP answers 200 while work is taken, and otherwise 503 with the reason. With
// ?verbose it answers a line for each condition, in the form of Kubernetes.
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
