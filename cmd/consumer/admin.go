package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// page is what an operator may ask for. Without a text the index does not name it.
type page struct {
	Link, Text string // as the index has them
	handler    http.Handler
}

// adminPages returns what the daemon tells of itself.
func adminPages(cfg config, reg *prometheus.Registry, ready *readiness) []page {
	return []page{
		{"/metrics", "metrics for Prometheus", metricsHandler(reg)},
		{"/healthz", "whether the daemon lives; if not, start it again", http.HandlerFunc(ready.alive)},
		{"/readyz?verbose", "whether work is taken, and what keeps it from being taken", ready},
		{"/status", "what the daemon does, as JSON", &statusPage{cfg: cfg, started: time.Now(), ready: ready}},
	}
}

// profilePages returns Go's profiles. Whoever can ask for them can slow the process down,
// and look into it.
func profilePages() []page {
	return []page{
		{"/debug/pprof/", "profiles of the process, for go tool pprof", http.HandlerFunc(pprof.Index)},
		{"/debug/pprof/cmdline", "", http.HandlerFunc(pprof.Cmdline)},
		{"/debug/pprof/profile", "", http.HandlerFunc(pprof.Profile)},
		{"/debug/pprof/symbol", "", http.HandlerFunc(pprof.Symbol)},
		{"/debug/pprof/trace", "", http.HandlerFunc(pprof.Trace)},
	}
}

// index is parsed when it is asked for first.
var index = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("index").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Container Image Manager</title></head>
<body>
<h1>Container Image Manager</h1>
<ul>
{{range .}}{{if .Text}}<li><a href="{{.Link}}">{{.Link}}</a>: {{.Text}}</li>
{{end}}{{end}}</ul>
</body>
</html>
`))
})

// adminHandler serves the pages, and an index of them at the root.
func adminHandler(pages []page) http.Handler {
	mux := http.NewServeMux()
	for _, p := range pages {
		path, _, _ := strings.Cut(p.Link, "?")
		mux.Handle("GET "+path, p.handler)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = index().Execute(w, pages) // fails if nobody reads it any more
	})
	return mux
}

// newAdminServer returns a server that nobody can hold up. Its WriteTimeout is longer
// than any answer takes; package pprof moves it by the length of a profile.
func newAdminServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, // scrapers come every minute
	}
}

// serveAdmin serves the pages on LISTEN_ADDR. Profiles are there only if no other host
// can ask for them; DEBUG_ADDR is for those who want them elsewhere. It listens before
// anything takes time, so that a probe sees a long recovery, and a bad address shows at
// once.
func (s *system) serveAdmin(ctx context.Context, pages []page) error {
	err := s.serve(ctx, "LISTEN_ADDR", s.cfg.Listen, "serving metrics and health", func(at net.Addr) []page {
		if isLoopback(at) {
			return append(pages, profilePages()...)
		}
		return pages
	})
	if err != nil {
		return err
	}
	return s.serve(ctx, "DEBUG_ADDR", s.cfg.Debug, "serving profiles", func(net.Addr) []page { return profilePages() })
}

// isLoopback reports whether only this host reaches an address.
func isLoopback(at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// serve serves pages on the address of a setting until the system closes. On an empty one
// it serves none.
func (s *system) serve(ctx context.Context, setting, addr, what string, pages func(at net.Addr) []page) error {
	if addr == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	srv := newAdminServer(adminHandler(pages(l.Addr())))
	served := make(chan error, 1) // buffered: the goroutine ends even when nobody asks
	go func() { served <- srv.Serve(l) }()
	s.onClose(func() error {
		err := srv.Close()
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	})
	s.log.Info().Str("addr", l.Addr().String()).Msg(what)
	return nil
}
