package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// The variables that switch traces on, choose where they go, and thin them out. The
// exporters read all others. See
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
const (
	varDisabled       = "OTEL_SDK_DISABLED"
	varExporter       = "OTEL_TRACES_EXPORTER"
	varProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	varTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	varEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	varTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	varSampler        = "OTEL_TRACES_SAMPLER"
	varSamplerArg     = "OTEL_TRACES_SAMPLER_ARG"
	varAttributes     = "OTEL_RESOURCE_ATTRIBUTES"
)

const (
	exporterNone    = "none"
	exporterOTLP    = "otlp"
	exporterConsole = "console"

	protocolGRPC     = "grpc"
	protocolProtobuf = "http/protobuf"
	protocolJSON     = "http/json"
)

// Config is what the environment asks for. The zero value asks for no traces.
type Config struct {
	exporter string
	protocol string
	sampler  sdktrace.Sampler
}

// ReadConfig reads the standard variables of OpenTelemetry, and returns every problem
// with them. Without an endpoint or an exporter among them there are no traces, and the
// other variables do not matter.
func ReadConfig() (Config, error) {
	var r reader
	disabled := r.choice("false", []string{varDisabled}, "true", "false") == "true"
	exporter := exporterNone
	if value(varEndpoint) != "" || value(varTracesEndpoint) != "" {
		exporter = exporterOTLP
	}
	c := Config{exporter: r.choice(exporter, []string{varExporter}, exporterOTLP, exporterConsole, exporterNone)}
	if disabled || c.exporter == exporterNone {
		return Config{exporter: exporterNone}, errors.Join(r.problems...)
	}
	c.protocol = r.choice(protocolProtobuf, []string{varTracesProtocol, varProtocol},
		protocolGRPC, protocolProtobuf, protocolJSON)
	r.endpoint(varEndpoint)
	r.endpoint(varTracesEndpoint)
	c.sampler = r.sampler()
	r.attributes()
	return c, errors.Join(r.problems...)
}

// Enabled reports whether there are traces.
func (c Config) Enabled() bool { return c.exporter != exporterNone && c.exporter != "" }

// value returns the value of a variable. An empty one counts as unset, as OpenTelemetry
// demands.
func value(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// reader collects what is wrong with the variables.
type reader struct{ problems []error }

func (r *reader) bad(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

// choice returns the value of the first variable that is set; it must be one of those
// allowed.
func (r *reader) choice(unset string, names []string, allowed ...string) string {
	for _, name := range names {
		v := strings.ToLower(value(name))
		if v == "" {
			continue
		}
		if !slices.Contains(allowed, v) {
			r.bad("%s %q is not %s", name, v, strings.Join(allowed, ", "))
		}
		return v
	}
	return unset
}

// endpoint refuses what is no URL: an exporter would send to its default instead.
func (r *reader) endpoint(name string) {
	v := value(name)
	if v == "" {
		return
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		r.bad("%s %q is not a URL: write http://host:4318, or http://host:4317 for gRPC", name, v)
	}
}

// sampler returns the configured sampler. It decides by the trace, so all spans of an
// image are sampled or none.
func (r *reader) sampler() sdktrace.Sampler {
	name := r.choice("parentbased_always_on", []string{varSampler}, "always_on", "always_off", "traceidratio",
		"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio")
	kind, parentBased := strings.CutPrefix(name, "parentbased_")
	var s sdktrace.Sampler
	switch kind {
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		s = sdktrace.TraceIDRatioBased(r.ratio())
	default:
		s = sdktrace.AlwaysSample()
	}
	if parentBased {
		return sdktrace.ParentBased(s)
	}
	return s
}

// ratio returns the part of the traces to be sampled; all without a value.
func (r *reader) ratio() float64 {
	v := value(varSamplerArg)
	if v == "" {
		return 1
	}
	ratio, err := strconv.ParseFloat(v, 64)
	inside := ratio >= 0 && ratio <= 1 // a NaN is not
	if err != nil || !inside {
		r.bad("%s %q is not a number from 0 to 1, such as 0.1 for one trace in ten", varSamplerArg, v)
	}
	return ratio
}

// attributes refuses what OpenTelemetry cannot read.
func (r *reader) attributes() {
	if _, err := resource.New(context.Background(), resource.WithFromEnv()); err != nil {
		r.bad("%s %q: %w: write key=value, several with commas between them", varAttributes, value(varAttributes), err)
	}
}
