package tracing

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"imagemanager.internal/test/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setenv replaces all variables of OpenTelemetry by those given, each NAME=value.
func setenv(t *testing.T, vars ...string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for _, kv := range vars {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
}

// start starts traces as the environment says.
func start(t *testing.T) (p trace.TracerProvider, stop func()) {
	t.Helper()
	c, err := ReadConfig()
	if err != nil {
		t.Fatal(err)
	}
	p, stop, err = Start(t.Context(), c, "v1.2.3", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return p, stop
}

// serve returns the address of a collector over HTTP.
func serve(t *testing.T, c http.Handler) string {
	t.Helper()
	s := httptest.NewServer(c)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s.URL
}

// job makes the spans of a job; in an image's trace if that is not zero.
func job(p trace.TracerProvider, id trace.TraceID, fails bool) {
	tracer := p.Tracer("test")
	ctx := trace.ContextWithSpanContext(context.Background(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: id}))
	ctx, whole := tracer.Start(ctx, "job")
	_, part := tracer.Start(ctx, "part")
	part.End()
	if fails {
		whole.SetStatus(codes.Error, "no luck")
	}
	whole.End()
}

// A context with nothing but a trace id makes a span without a parent in that trace: so
// the jobs of an image come into its trace, in any process.
func TestJoinsTrace(t *testing.T) {
	var c otlp.Collector
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+serve(t, &c))
	p, stop := start(t)
	id := trace.TraceID{1, 2, 3}
	job(p, id, false)
	job(p, id, false)
	stop()
	if got, want := c.Tree(id.String()), "job\n  part\njob\n  part\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// The spans say which program they are of; the environment has the last word.
func TestResource(t *testing.T) {
	for service, vars := range map[string][]string{
		"imagemanager": nil,
		"other":        {"OTEL_SERVICE_NAME=other", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=prod"},
	} {
		var c otlp.Collector
		setenv(t, append(vars, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+serve(t, &c)+"/v1/traces")...)
		p, stop := start(t)
		job(p, trace.TraceID{}, false)
		stop()
		r := c.Resource()
		if r["service.name"] != service || r["service.version"] != "v1.2.3" || r["host.name"] == "" ||
			(vars != nil) != (r["deployment.environment.name"] == "prod") {
			t.Errorf("%v", r)
		}
	}
}

func TestGRPC(t *testing.T) {
	var c otlp.Collector
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, served := grpc.NewServer(), make(chan error, 1)
	coltrace.RegisterTraceServiceServer(s, &c)
	go func() { served <- s.Serve(l) }()
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	p, stop := start(t)
	job(p, trace.TraceID{1}, false)
	stop()
	s.Stop()
	if err := <-served; err != nil || len(c.Spans("")) != 2 {
		t.Errorf("%d spans, %v", len(c.Spans("")), err)
	}
}

// Of the traces that are not sampled, those of failed jobs are exported nevertheless, and
// whole.
func TestFailuresAreKept(t *testing.T) {
	var c otlp.Collector
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+serve(t, &c), "OTEL_TRACES_SAMPLER=parentbased_traceidratio",
		"OTEL_TRACES_SAMPLER_ARG=0")
	p, stop := start(t)
	job(p, trace.TraceID{1}, false)
	job(p, trace.TraceID{2}, true)
	job(p, trace.TraceID{2}, false)
	stop()
	if got := c.Tree(trace.TraceID{2}.String()); got != "job FAILED\n  part\n" || len(c.Spans("")) != 2 {
		t.Errorf("%d spans: %s", len(c.Spans("")), got)
	}
}

// Spans that wait for the end of their job are bounded, and none is left over.
func TestHeldSpansAreBounded(t *testing.T) {
	f := keepFailures(sdktrace.NewSimpleSpanProcessor(nil))
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(recordAll{sdktrace.NeverSample()}),
		sdktrace.WithSpanProcessor(f)).Tracer("test")
	ctx, whole := tracer.Start(t.Context(), "job")
	for range mostHeld + 10 {
		_, part := tracer.Start(ctx, "part")
		part.End()
	}
	if f.n != mostHeld {
		t.Errorf("%d spans are held, want %d", f.n, mostHeld)
	}
	whole.End()
	if f.n != 0 || len(f.held) != 0 {
		t.Errorf("after the job: %d spans are held", f.n)
	}
}

// A collector that is gone makes one warning a minute. That it is gone is no error, at
// the start nor at the end.
func TestNoCollector(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+gone.URL)
	p, stop := start(t)
	var text bytes.Buffer
	now := time.Unix(1000, 0)
	newReporter(zerolog.New(&text), func() time.Time { return now })
	for range 2 {
		for range 5 {
			job(p, trace.TraceID{1}, false)
			otel.Handle(p.(*sdktrace.TracerProvider).ForceFlush(t.Context()))
		}
		now = now.Add(time.Minute)
	}
	stop()
	got := text.String()
	if n := strings.Count(got, "traces are not exported"); n != 2 || !strings.Contains(got, "refused") {
		t.Errorf("%d warnings, want one a minute:\n%s", n, got)
	}
}

// silent is a collector that takes spans and never answers.
type silent struct{}

func (silent) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	<-ctx.Done()
	return ctx.Err()
}

func (silent) Shutdown(context.Context) error { return nil }

// A collector that does not answer holds the end of the program up for two seconds.
func TestSilentCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		r := newReporter(zerolog.New(&text), time.Now)
		p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(silent{}))
		job(p, trace.TraceID{1}, false)
		began := time.Now()
		r.stop(t.Context(), p)
		if took := time.Since(began); took != flushTime || !strings.Contains(text.String(), "deadline exceeded") {
			t.Errorf("it took %s, and says %s", took, text.String())
		}
		time.Sleep(time.Minute) //nolint:forbidigo // the clock is the test's; the export gives up meanwhile
	})
}
