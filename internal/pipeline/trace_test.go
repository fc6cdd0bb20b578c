package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/otlp"
)

// traced sends the spans of a pipeline to a collector.
func traced(p *Pipeline) *otlp.Collector {
	c := &otlp.Collector{}
	p.traces.tracer = c.Provider().Tracer("test")
	p.messages.tracer = p.traces.tracer
	return c
}

// traceWork has a pipeline work off a message about one image, and returns the tree of
// the image's trace. Each stage takes a second, then it does what do says.
func traceWork(t *testing.T, do func(store.Stage) error) (c *otlp.Collector, tree string) {
	t.Helper()
	p := newPipeline(t)
	c = traced(p)
	work(t, p, newPatientQueue(notified("images/a.tar")), func(_ string, st store.Stage) error {
		wait(t.Context(), time.Second)
		return do(st)
	})
	img, err := p.store.Image(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Tree(img.TraceID, "image.attempt", "image.verdict", "image.reason", "image.outcome")
}

// once fails the first attempt at a stage.
func once(at store.Stage) func(store.Stage) error {
	failed := false
	return func(st store.Stage) error {
		if st != at || failed {
			return nil
		}
		failed = true
		return errors.New("once")
	}
}

func TestTraceOfAnImage(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(store.Stage) error
		want string
	}{
		"good": {func(store.Stage) error { return nil }, `
process images image.outcome=done
  wait
  download image.attempt=1 +handed off
  wait
  unpack image.attempt=2 +handed off
  wait
  activate image.attempt=3 +handed off
`},
		"refused": {func(st store.Stage) error {
			if st == store.StageUnpack {
				return &archive.Rejection{Reason: "dotdot_name", Violation: true}
			}
			return nil
		}, `
process images image.verdict=violation image.reason=dotdot_name image.outcome=violation FAILED
  wait
  download image.attempt=1 +handed off
  wait
  unpack image.attempt=2 image.verdict=violation image.reason=dotdot_name FAILED
`},
		"retried": {once(store.StageUnpack), `
process images image.verdict=retry image.reason=other image.outcome=retry FAILED
  wait
  download image.attempt=1 +handed off
  wait
  unpack image.attempt=2 image.verdict=retry image.reason=other FAILED
process images image.outcome=done
  wait
  unpack image.attempt=3 +handed off
  wait
  activate image.attempt=4 +handed off
`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, got := traceWork(t, tc.do); got != strings.TrimPrefix(tc.want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", got, tc.want)
				}
			})
		})
	}
}

// The job is linked to the poll that brought its message, and the end of the message to
// the job. Both are traces of their own.
func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := traceWork(t, func(store.Stage) error { return nil })
		received, job, settled := c.Spans("receive images"), c.Spans("process images"), c.Spans("settle images")
		if len(received) != 1 || len(job) != 1 || len(settled) != 1 {
			t.Fatalf("%d polls, %d jobs, %d ends", len(received), len(job), len(settled))
		}
		if fmt.Sprint(job[0].Links) != fmt.Sprint([]string{received[0].Trace}) ||
			fmt.Sprint(settled[0].Links) != fmt.Sprint([]string{job[0].Trace}) {
			t.Errorf("links of the job %v, of the end %v", job[0].Links, settled[0].Links)
		}
		for key, want := range map[string]string{
			"messaging.system": "aws_sqs", "messaging.operation.name": "ack", "messaging.message.id": "m0",
			"message.outcome": "deleted",
		} {
			if got := settled[0].Attributes[key]; got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		if job[0].Attributes["aws.s3.key"] != "images/a.tar" || job[0].Attributes["messaging.message.id"] != "m0" ||
			job[0].Kind != "CONSUMER" ||
			received[0].Attributes["messaging.batch.message_count"] != "1" {
			t.Errorf("%+v\n%+v", job[0], received[0])
		}
	})
}

// A message that comes while its image is worked on is linked to the same job.
func TestMessageJoinsSpan(t *testing.T) {
	p := newPipeline(t)
	c := traced(p)
	job := enqueue(t, p, 1)[0]
	p.traces.beginJob(t.Context(), job)
	joining := &delivery{msg: &queue.Message{
		TraceHeader: "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
	}}
	p.jobs.take(job.Image.ID, joining)
	p.finish(t.Context(), job, done)
	if got := c.Spans("process images")[0].Links; fmt.Sprint(got) != "[5759e988bd862e3fe1be46a994272793]" {
		t.Errorf("links %v", got)
	}
	if len(joining.jobs) != 1 {
		t.Errorf("the message knows of %d jobs", len(joining.jobs))
	}
}

func TestSender(t *testing.T) {
	const root = "5759e988bd862e3fe1be46a994272793"
	for header, want := range map[string]string{
		"": "", "nonsense": "", "Root=1-5759e988-bd862e3fe1be46a994272793": "", "Root=1-x;Parent=y": "",
		"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0":           root + " false",
		"Self=1-x; Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1;Parent=53995c3f42cd8ad8": root + " true",
	} {
		got := ""
		if sc := sender(header); sc.IsValid() {
			got = fmt.Sprint(sc.TraceID(), " ", sc.IsSampled())
		}
		if got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

// A key that is not UTF-8 does not cost the spans of all images.
func TestKeyOfAnyBytes(t *testing.T) {
	p := newPipeline(t)
	c := traced(p)
	job := enqueue(t, p, 1)[0]
	job.Image.Key = "images/\xff.tar"
	p.traces.beginJob(t.Context(), job)
	job.trace.failed(judgement{verdict: reject, text: "entry \xff"})
	p.finish(t.Context(), job, outcome{verdict: reject})
	s := c.Spans("process images")
	if len(s) != 1 || s[0].Attributes["aws.s3.key"] != "images/\uFFFD.tar" || s[0].Error != "entry \uFFFD" {
		t.Errorf("%+v", s)
	}
}

// An attempt that died with its process has a span in the image's trace. It begins and
// ends with what the journal has of it.
func TestInterruptedAttempt(t *testing.T) {
	p := newPipeline(t)
	c := traced(p)
	img := enqueue(t, p, 2)[0].Image
	if _, err := p.store.Begin(t.Context(), img.ID, store.StageDownload); err != nil {
		t.Fatal(err)
	}
	if err := p.traces.interrupted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.Tree(img.TraceID, "image.stage", "image.attempt"); len(c.Spans("")) != 1 ||
		got != "interrupted image.stage=download image.attempt=1 FAILED\n" {
		t.Errorf("%d spans: %s", len(c.Spans("")), got)
	}
	events, err := p.store.History(t.Context(), img.ID)
	if err != nil || !c.Spans("")[0].Start.Equal(events[1].At) {
		t.Errorf("it begins at %s, the attempt at %s: %v", c.Spans("")[0].Start, events[1].At, err)
	}
}

// A stage that does not come back fails its attempt and its job: both spans end.
func TestStuckStageEndsItsSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		c := traced(p)
		back := make(chan struct{})
		p.table[0].do = func(context.Context, *provision.Task) error { <-back; return nil }
		p.table[0].undo = func(context.Context, *provision.Task) error { return nil }
		job := enqueue(t, p, 1)[0]
		p.traces.beginJob(t.Context(), job)
		id := job.Image.TraceID
		if o := p.step(t.Context(), p.table[0], job); o != stuck {
			t.Fatalf("%+v", o)
		}
		p.abandonStuck(t.Context(), p.table[0], job)
		want := "process images image.outcome=retry FAILED\n  wait\n  download FAILED\n"
		if got := c.Tree(id, "image.outcome"); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		close(back)
		synctest.Wait()
	})
}

// Lines of the log about an attempt name its span.
func TestSpanInLog(t *testing.T) {
	var log bytes.Buffer
	p := newLoggingPipeline(t, zerolog.New(&log))
	c := traced(p)
	fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error { return nil })
	job := enqueue(t, p, 1)[0]
	p.traces.beginJob(t.Context(), job)
	if o := p.step(t.Context(), p.table[0], job); o != goesOn {
		t.Fatalf("%+v", o)
	}
	attempt := c.Spans("download")[0]
	want := fmt.Sprintf(`"trace_id":%q,"attempt":1,"span_id":%q`, attempt.Trace, attempt.ID)
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, want) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
	if log.Len() == 0 || job.SpanID != "" {
		t.Errorf("lines %q; after the attempt they name span %q", log.String(), job.SpanID)
	}
}
