package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/store"
)

// daemonPlayed answers as a daemon of the state directory does, on LISTEN_ADDR, and holds
// its lock.
func daemonPlayed(t *testing.T, f fixed) {
	t.Helper()
	holdDaemonLock(t)
	cfg, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Bucket, cfg.QueueURL = "demo", someQueue
	p := &statusPage{cfg: cfg, started: time.Now(), ready: following(f)}
	listening(t, adminHandler([]page{{"/status", "", p}}))
}

// listening serves on an address that LISTEN_ADDR then names.
func listening(t *testing.T, h http.Handler) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	t.Setenv("LISTEN_ADDR", srv.Listener.Addr().String())
}

// holdDaemonLock holds the lock of STATE_DIR's daemon until the test ends.
func holdDaemonLock(t *testing.T) {
	t.Helper()
	s := &system{cfg: config{StateDir: os.Getenv("STATE_DIR")}}
	if err := s.lockState(daemonLock); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// busyPipeline is a pipeline at work on two of the images of someJournal.
func busyPipeline() *pipeline.Status {
	p, now := atWork(), time.Now()
	p.Jobs = []pipeline.JobStatus{
		{
			Image: 4, Key: "images/busy.tar", Stage: store.StageDownload, State: "working", Since: now,
			Done: 3 << 20, Total: 12 << 20,
		},
		{Image: 6, Key: "images/\x1b[31mred.tar", State: "waiting", Since: now},
	}
	p.Stages = []pipeline.StageStatus{
		{Name: store.StageDownload, Workers: 5, Busy: 1},
		{Name: store.StageUnpack, Workers: 2},
		{Name: store.StageActivate, Workers: 1},
	}
	p.Images = map[store.State]int{
		store.StatePending: 2, store.StateActive: 2, store.StateRejected: 1, store.StateViolation: 1,
		store.StateSuperseded: 3, store.StateVanished: 4, store.StateRemoved: 5, store.StateDead: 0,
	}
	p.Reconcile = &pipeline.ReconcileStatus{Ended: now}
	return p
}

// statusCases are the answers that status can get, in order.
var statusCases = []struct {
	name string
	set  func(t *testing.T)
}{
	{"the daemon works", func(t *testing.T) { daemonPlayed(t, fixed{status: busyPipeline()}) }},
	{"the daemon takes no work", func(t *testing.T) {
		s := busyPipeline()
		s.Jobs, s.Reconcile.Error = nil, "device 5 is in use (mounted on \"/mnt\")"
		daemonPlayed(t, fixed{status: s, reasons: health.Reasons{
			health.DiskLow: errors.New("disk is low on space: 12 MiB are free:\nmake room"),
			health.PoolLow: errors.New("thin pool is low on space: run `consumer pool grow --data-size 200GiB`"),
		}})
	}},
	{"the daemon recovers", func(t *testing.T) {
		daemonPlayed(t, fixed{reasons: health.Reasons{health.Recovering: errRecovering}})
	}},
	{"no daemon runs", func(t *testing.T) { t.Setenv("S3_BUCKET", "demo") }},
	{"nobody answers", func(t *testing.T) {
		holdDaemonLock(t)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("LISTEN_ADDR", l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}},
	{"no address is known", func(t *testing.T) { holdDaemonLock(t); t.Setenv("LISTEN_ADDR", "") }},
	{"a program of another kind answers", func(t *testing.T) {
		holdDaemonLock(t)
		listening(t, http.NotFoundHandler())
	}},
	{"another daemon answers", func(t *testing.T) {
		holdDaemonLock(t)
		other := &statusPage{cfg: config{StateDir: "/srv/other"}, ready: following(fixed{})}
		listening(t, adminHandler([]page{{"/status", "", other}}))
	}},
}

// whereAndWhen finds what differs between two runs of status.
var whereAndWhen = regexp.MustCompile(
	`since \d.* ago\)|process \d+ \(.*\)|PID \d+|version \S+[^,\s]|/tmp/\S+|127.0.0.1:\d+|not seen: .*`)

func steadyStatus(text string) string { return steady(whereAndWhen.ReplaceAllString(text, "…")) }

// People see how the daemon is, whoever answers.
func TestGoldenStatus(t *testing.T) {
	var all strings.Builder
	for _, c := range statusCases {
		t.Run(c.name, func(t *testing.T) {
			someJournal(t)
			c.set(t)
			code, text := perform(t, "status")
			if code != 0 || strings.Contains(text, "\x1b") {
				t.Errorf("exit code %d: %s", code, text)
			}
			all.WriteString("# " + c.name + "\n" + steadyStatus(text) + "\n")
		})
	}
	same(t, "testdata/status.txt", all.String())
}

// Programs depend on the form of the JSON. That of the daemon has a golden file of its
// own.
func TestGoldenStatusJSON(t *testing.T) {
	someJournal(t)
	code, text := perform(t, "status --json")
	if code != 0 {
		t.Errorf("exit code %d: %s", code, text)
	}
	same(t, "testdata/json/status.json", steady(strings.ReplaceAll(text, os.Getenv("STATE_DIR"), "/state")))
}

// Programs find every state, and the daemon's answer as the daemon gave it.
func TestStatusJSON(t *testing.T) {
	someJournal(t)
	daemonPlayed(t, fixed{status: busyPipeline()})
	code, text := perform(t, "status --json")
	var r statusReport
	if err := json.Unmarshal([]byte(text), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, text)
	}
	for _, state := range store.States() {
		if _, there := r.Images[state]; !there {
			t.Errorf("there is no number of %s images", state)
		}
	}
	if r.Daemon == nil || r.Daemon.PID != os.Getpid() || len(r.Daemon.Pipeline.Jobs) != 2 || !r.Running ||
		r.Images[store.StateRemoved] != 5 || r.Quarantined != 2 || len(r.Pending) != 2 {
		t.Errorf("%s", text)
	}
}

// An attempt that died with its daemon does not run.
func TestInterrupted(t *testing.T) {
	j := begun(t)
	img := j.pending("images/a.tar", "1")
	must[store.Attempt](j)(j.Begin(t.Context(), img.ID, store.StageDownload))
	_, text := perform(t, "status --json")
	if strings.Contains(text, `"running": true`) || !strings.Contains(text, `"doing": "interrupted"`) {
		t.Errorf("no daemon runs: %s", text)
	}
	if _, text := perform(t, "status"); !strings.Contains(text, "interrupted") {
		t.Errorf("no daemon runs: %s", text)
	}
	holdDaemonLock(t)
	t.Setenv("LISTEN_ADDR", "")
	if _, text := perform(t, "status --json"); !strings.Contains(text, `"doing": "working"`) {
		t.Errorf("a daemon runs: %s", text)
	}
}

// A look makes nothing: no state directory, no lock, no database.
func TestStatusMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	t.Setenv("STATE_DIR", dir)
	if code, text := perform(t, "status"); code == 0 {
		t.Errorf("exit code 0: %s", text)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it was made: %v", err)
	}
	begun(t)
	if code, text := perform(t, "status"); code != 0 {
		t.Errorf("exit code %d: %s", code, text)
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("STATE_DIR"), daemonLock)); !os.IsNotExist(err) {
		t.Errorf("a lock was made: %v", err)
	}
}

// The daemon is asked on its own host, wherever it listens.
func TestDialled(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:9090": "127.0.0.1:9090", ":9090": "localhost:9090", "0.0.0.0:80": "localhost:80",
		"[::]:9090": "localhost:9090", "[::1]:9090": "[::1]:9090", "example:1": "example:1",
	} {
		if have := dialled(listen); have != want {
			t.Errorf("%s is dialled as %s, want %s", listen, have, want)
		}
	}
}

// A daemon that takes the question and never answers does not hold the command up.
func TestSilentDaemon(t *testing.T) {
	someJournal(t)
	holdDaemonLock(t)
	asked := make(chan struct{}, 1) // buffered: nobody waits for the handler
	listening(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	cfg, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(context.DeadlineExceeded) }()
	if s, err := askDaemon(ctx, cfg); err == nil {
		t.Errorf("an answer: %+v", s)
	}
}

// The address is the one place of status where a number may be wrong.
func TestStatusTakesListen(t *testing.T) {
	someJournal(t)
	daemonPlayed(t, fixed{status: busyPipeline()})
	addr := os.Getenv("LISTEN_ADDR")
	t.Setenv("LISTEN_ADDR", "127.0.0.1:1")
	code, text := perform(t, "status --listen "+addr)
	if code != 0 || !strings.Contains(text, "PID "+strconv.Itoa(os.Getpid())) {
		t.Errorf("exit code %d: %s", code, text)
	}
}

// The page on JSON has every field of the report. Those of images and of the daemon are
// elsewhere.
func TestStatusFieldsAreDocumented(t *testing.T) {
	fields := slices.DeleteFunc(fieldsOf(reflect.TypeFor[statusReport](), ""), func(field string) bool {
		outer, _, inner := strings.Cut(field, ".")
		return inner && slices.Contains([]string{"pending", "daemon", "pool"}, outer)
	})
	documented(t, "consumer status", append(fields, "pending[].doing"))
}

// documented checks that a section of docs/json.md has these fields.
func documented(t *testing.T, section string, fields []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "## "+section+"\n")
	after, _, _ = strings.Cut(after, "\n## ")
	if !found {
		t.Errorf("docs/json.md has no section %s", section)
	}
	for _, field := range fields {
		if !strings.Contains(after, "`"+field+"`") {
			t.Errorf("docs/json.md does not say what %s of `%s` is", field, section)
		}
	}
}
