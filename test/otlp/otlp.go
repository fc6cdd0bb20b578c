// Package otlp is a collector of traces for tests: it receives them over HTTP and gRPC,
// and shows them as text.
package otlp

import (
	"context"
	"io"
	"net/http"
	"sync"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector keeps the spans that it receives. As an http.Handler it answers any path; as
// a server of gRPC it is registered with RegisterTraceServiceServer.
type Collector struct {
	coltrace.UnimplementedTraceServiceServer

	mu       sync.Mutex
	spans    []*tracepb.Span
	resource map[string]string
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := &coltrace.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.add(req)
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, _ := proto.Marshal(&coltrace.ExportTraceServiceResponse{}) // an empty message can be encoded
	_, _ = w.Write(answer)                                             // the client may have gone
}

// Export implements coltrace.TraceServiceServer.
func (c *Collector) Export(_ context.Context, req *coltrace.ExportTraceServiceRequest) (
	*coltrace.ExportTraceServiceResponse, error,
) {
	c.add(req)
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *Collector) add(req *coltrace.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		c.resource = values(r.GetResource().GetAttributes())
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
}

// Resource returns the attributes of the process that the newest spans are of.
func (c *Collector) Resource() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource
}

// Spans returns the spans with the name, or all for an empty one.
func (c *Collector) Spans(name string) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Span
	for _, s := range c.spans {
		if name == "" || s.GetName() == name {
			found = append(found, newSpan(s))
		}
	}
	return found
}

// values returns attributes as text.
func values(attributes []*commonpb.KeyValue) map[string]string {
	found := map[string]string{}
	for _, kv := range attributes {
		found[kv.GetKey()] = text(kv.GetValue())
	}
	return found
}
