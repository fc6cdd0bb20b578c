package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// somePages are those of a daemon that starts.
func somePages() []page { return adminPages(config{}, prometheus.NewRegistry(), newReadiness()) }

// Every link of the index leads somewhere, and nothing else does.
func TestIndex(t *testing.T) {
	h := adminHandler(append(somePages(), profilePages()...))
	w := ask(t, h, "/")
	if kind := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(kind, "text/html") {
		t.Fatalf("%d %s", w.Code, kind)
	}
	links := regexp.MustCompile(`<li><a href="([^"]+)">[^<]+</a>: \w`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(links) < 4 {
		t.Fatalf("only %d links in:\n%s", len(links), w.Body)
	}
	for _, l := range links {
		if w := ask(t, h, l[1]); w.Code == http.StatusNotFound {
			t.Errorf("%s leads nowhere", l[1])
		}
	}
	for _, path := range []string{"/index.html", "/metrics/", "/debug", "/favicon.ico"} {
		if w := ask(t, h, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
}

// Pages are read only.
func TestPagesTakeNothing(t *testing.T) {
	for _, path := range []string{"/", "/metrics", "/readyz"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader("x"))
		adminHandler(somePages()).ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

// Nobody can hold the server up by reading or writing slowly.
func TestServerHasTimeouts(t *testing.T) {
	srv := newAdminServer(http.NotFoundHandler())
	for name, limit := range map[string]time.Duration{
		"of the header": srv.ReadHeaderTimeout, "of the request": srv.ReadTimeout, "of the answer": srv.WriteTimeout,
		"of a quiet connection": srv.IdleTimeout,
	} {
		if limit <= 0 {
			t.Errorf("no time-out %s", name)
		}
	}
}

// A profile takes longer than an answer may, and comes all the same.
func TestProfileOutlastsTheTimeout(t *testing.T) {
	srv := httptest.NewUnstartedServer(adminHandler(profilePages()))
	srv.Config.WriteTimeout = 500 * time.Millisecond
	srv.Start()
	defer srv.Close()
	if code, body := get(t, srv.URL+"/debug/pprof/trace?seconds=1"); code != http.StatusOK || len(body) == 0 {
		t.Errorf("%d, %d bytes", code, len(body))
	}
}

// served returns the addresses of a daemon by what it serves there.
func served(t *testing.T, listen, debug string) map[string]string {
	t.Helper()
	var log bytes.Buffer
	s := &system{cfg: config{Listen: listen, Debug: debug}, log: zerolog.New(&log)}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.serveAdmin(t.Context(), somePages()); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(log.String()) {
		var l struct{ Message, Addr string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr)
		if err != nil {
			t.Fatal(err)
		}
		all[l.Message] = "http://127.0.0.1:" + port
	}
	return all
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// Other hosts get no profiles, unless DEBUG_ADDR is for them.
func TestWhoGetsProfiles(t *testing.T) {
	const metrics, profiles = "serving metrics and health", "serving profiles"
	for name, c := range map[string]struct {
		listen, debug string
		want          map[string]int // status of /debug/pprof/ by what is served there
	}{
		"this host":        {"127.0.0.1:0", "", map[string]int{metrics: 200}},
		"every host":       {"0.0.0.0:0", "", map[string]int{metrics: 404}},
		"an address aside": {"0.0.0.0:0", "127.0.0.1:0", map[string]int{metrics: 404, profiles: 200}},
		"profiles only":    {"", "127.0.0.1:0", map[string]int{profiles: 200}},
		"nothing":          {"", "", map[string]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			all := served(t, c.listen, c.debug)
			if len(all) != len(c.want) {
				t.Errorf("served: %v", all)
			}
			for what, want := range c.want {
				if code, _ := get(t, all[what]+"/debug/pprof/"); code != want {
					t.Errorf("%s, profiles: %d, want %d", what, code, want)
				}
			}
			if url, is := all[profiles]; is {
				if code, _ := get(t, url+"/metrics"); code != http.StatusNotFound {
					t.Errorf("metrics beside the profiles: %d", code)
				}
			}
		})
	}
}

// The error names the setting.
func TestAddressInUse(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &system{cfg: config{Debug: l.Addr().String()}, log: zerolog.Nop()}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.serveAdmin(t.Context(), somePages()); err == nil || !strings.HasPrefix(err.Error(), "DEBUG_ADDR: ") {
		t.Error(err)
	}
}
