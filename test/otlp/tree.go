package otlp

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is a span as received. Ids are in hex; an empty Parent is none.
type Span struct {
	Name              string
	Kind              string // such as CLIENT
	Trace, ID, Parent string
	Start, End        time.Time
	Attributes        map[string]string
	Events            []string
	Links             []string // traces that it refers to
	Failed            bool
	Error             string // why it failed
}

func newSpan(s *tracepb.Span) Span {
	at := func(ns uint64) time.Time { return time.Unix(0, int64(ns)) } //nolint:gosec // of this century
	found := Span{
		Name: s.GetName(), Kind: strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"),
		Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
		Parent: hex.EncodeToString(s.GetParentSpanId()),
		Start:  at(s.GetStartTimeUnixNano()), End: at(s.GetEndTimeUnixNano()),
		Attributes: values(s.GetAttributes()),
		Failed:     s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR, Error: s.GetStatus().GetMessage(),
	}
	for _, e := range s.GetEvents() {
		found.Events = append(found.Events, e.GetName())
	}
	for _, l := range s.GetLinks() {
		found.Links = append(found.Links, hex.EncodeToString(l.GetTraceId()))
	}
	return found
}

// text returns the value of an attribute.
func text(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	}
	return fmt.Sprint(v)
}

// Tree shows a trace as text. Each span has a line below its parent's, in the order of
// their begin and then of their arrival, with the attributes named, its events, and
// whether it failed. Spans whose parent never came are left out.
func (c *Collector) Tree(trace string, attributes ...string) string {
	below := map[string][]Span{}
	for _, s := range c.Spans("") {
		if s.Trace == trace {
			below[s.Parent] = append(below[s.Parent], s)
		}
	}
	var out strings.Builder
	var show func(parent, indent string)
	show = func(parent, indent string) {
		slices.SortStableFunc(below[parent], func(a, b Span) int { return a.Start.Compare(b.Start) })
		for _, s := range below[parent] {
			out.WriteString(indent + s.line(attributes) + "\n")
			show(s.ID, indent+"  ")
		}
	}
	show("", "")
	return out.String()
}

// line shows one span.
func (s Span) line(attributes []string) string {
	words := []string{s.Name}
	for _, key := range attributes {
		if v, found := s.Attributes[key]; found {
			words = append(words, key+"="+v)
		}
	}
	for _, e := range s.Events {
		words = append(words, "+"+e)
	}
	if s.Failed {
		words = append(words, "FAILED")
	}
	return strings.Join(words, " ")
}
