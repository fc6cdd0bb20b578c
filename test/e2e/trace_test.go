package e2e

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
	"imagemanager.internal/test/otlp"
)

// collect returns a collector, and what tells the daemon to send its traces there.
func collect(t *testing.T) (c *otlp.Collector, env []string) {
	t.Helper()
	c = &otlp.Collector{}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	return c, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + srv.URL, "OTEL_BSP_SCHEDULE_DELAY=100"}
}

// checkTree compares the trace of a key's image with a tree.
func (h *host) checkTree(c *otlp.Collector, key, want string) {
	h.T.Helper()
	got := c.Tree(h.ImagesOf(key)[0].TraceID,
		"image.stage", "image.attempt", "image.reason", "image.outcome", "aws.requests", "image.entries")
	if want = strings.TrimPrefix(want, "\n"); got != want {
		h.Errorf("the trace of %s is\n%s\nwant\n%s", key, got, want)
	}
}

// The trace of a good image, and that of an attack.
func TestTraces(t *testing.T) {
	h := newHost(t)
	c, env := collect(t)
	h.put("images/good.tar", tarballs.RootFS("hello", 3))
	h.Start(env...)
	h.WaitActive("images/good.tar")
	h.put("images/evil.tar", tarballs.RootFS("hello", 3, tarballs.Entry{Name: "../evil", Body: "x"}))
	h.WaitEnded("images/evil.tar")
	h.WaitDrained()
	h.Stop()
	h.checkTree(c, "images/good.tar", `
process images image.outcome=done
  wait
  download image.attempt=1 aws.requests=1
    S3.GetObject
    commit
  wait
  unpack image.attempt=2 image.entries=10
    judge
    reserve
    mkfs
    extract
    sync
    readback
    seal
    commit
  wait
  activate image.attempt=3
    commit
`)
	h.checkTree(c, "images/evil.tar", `
process images image.reason=dotdot_name image.outcome=violation FAILED
  wait
  download image.attempt=1 aws.requests=1
    S3.GetObject
    commit
  wait
  unpack image.attempt=2 image.reason=dotdot_name FAILED
    judge FAILED
`)
	trace := h.ImagesOf("images/good.tar")[0].TraceID
	if out := h.Consumer("history", "--json", "images/good.tar"); !strings.Contains(out, `"trace_id": "`+trace+`"`) {
		h.Errorf("no trace %s in %s", trace, out)
	}
	settled := c.Spans("settle images")
	if !slices.ContainsFunc(settled, func(s otlp.Span) bool { return slices.Contains(s.Links, trace) }) {
		h.Errorf("no end of a message is linked to %s: %+v", trace, settled)
	}
	h.Look()
}

// The job that goes on after a crash joins the trace of its image. A span with the
// journal's times stands for the attempt that died.
func TestTraceAfterCrash(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s") // the message does not come again: the journal has the job
	c, env := collect(t)
	const key = "images/a.tar"
	h.put(key, tarballs.RootFS("hello", 3))
	h.Start(append(env, "CIM_CRASH_AT=after:step:unpack:filled")...)
	if !h.WaitKilled(30 * time.Second) {
		t.Fatal("the daemon was not killed: build it with -tags failpoint")
	}
	events, err := h.Store.History(t.Context(), h.ImagesOf(key)[0].ID)
	h.Check(err)
	h.Start(env...)
	h.WaitActive(key)
	h.Stop()
	h.checkTree(c, key, `
interrupted image.stage=unpack image.attempt=2 FAILED
process images image.outcome=done
  wait
  unpack image.attempt=3 image.entries=10
    judge
    reserve
    mkfs
    extract
    sync
    readback
    seal
    commit
  wait
  activate image.attempt=4
    commit
`)
	begun, last := events[0], events[len(events)-1]
	for _, e := range events {
		if e.Kind == store.EventBegun {
			begun = e
		}
	}
	if s := c.Spans("interrupted"); len(s) != 1 || !s[0].Start.Equal(begun.At) || !s[0].End.Equal(last.At) {
		h.Errorf("%+v, want it from %s to %s", s, begun.At, last.At)
	}
	h.Look()
}
