// Package awsmetrics measures the calls of AWS clients: how long they take, how they end,
// and in how many attempts.
//
// It is a middleware of the clients. The meters of the SDK do not say how a call ended,
// and cost a dozen instruments a call.
package awsmetrics

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/metric"
)

// operations are the calls that the daemon makes, by service.
var operations = map[string][]string{
	s3.ServiceID: {"GetObject", "HeadObject", "ListObjectsV2"},
	sqs.ServiceID: {
		"ChangeMessageVisibilityBatch", "DeleteMessageBatch", "GetQueueAttributes", "ReceiveMessage", "SendMessage",
	},
}

// The results of a call.
const (
	ok          = "ok"
	throttled   = "throttled"
	clientError = "client_error" // refused, or never sent, for a fault on our side; also an object that is missing
	serverError = "server_error"
	network     = "network" // no answer, or none in time
	canceled    = "canceled"
)

// Metrics measures the calls of any number of clients.
type Metrics struct {
	duration *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	attempts *prometheus.CounterVec
}

// New registers the metrics. They have every operation of the daemon from the start.
func New(reg prometheus.Registerer) *Metrics {
	f := metric.Factory(reg)
	m := &Metrics{
		duration: f.NewHistogramVec(metric.Histogram("aws_client_call_duration_seconds",
			"Time of a call until its answer or its last failure; bodies of objects are read later.",
			.01, .05, .25, 1, 5, 20), []string{"service", "operation"}),
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "aws_client_calls_total", Help: "Calls by how they ended.",
		}, []string{"service", "operation", "result"}),
		attempts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "aws_client_attempts_total", Help: "Requests for the calls, with those that were tried again.",
		}, []string{"service", "operation"}),
	}
	for service, names := range operations {
		for _, operation := range names {
			m.duration.WithLabelValues(service, operation)
			m.attempts.WithLabelValues(service, operation)
			for _, result := range []string{ok, throttled, clientError, serverError, network, canceled} {
				m.calls.WithLabelValues(service, operation, result)
			}
		}
	}
	return m
}

// Instrument measures the calls of a client. It is one of a client's APIOptions.
func (m *Metrics) Instrument(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Metrics", m.measure), middleware.Before)
}

// measure surrounds a call with all its attempts.
func (m *Metrics) measure(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
	out middleware.InitializeOutput, metadata middleware.Metadata, err error,
) {
	began := time.Now()
	out, metadata, err = next.HandleInitialize(ctx, in)
	service, operation := middleware.GetServiceID(ctx), middleware.GetOperationName(ctx)
	metric.Observe(ctx, m.duration.WithLabelValues(service, operation), time.Since(began).Seconds())
	m.calls.WithLabelValues(service, operation, result(err)).Inc()
	if attempts, made := retry.GetAttemptResults(metadata); made {
		m.attempts.WithLabelValues(service, operation).Add(float64(len(attempts.Results)))
	}
	return out, metadata, err
}

// result names the end of a call.
func result(err error) string {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, context.Canceled):
		return canceled
	}
	switch awserr.Classify(err) {
	case awserr.Throttled:
		return throttled
	case awserr.Server:
		return serverError
	case awserr.Network, awserr.Timeout:
		return network
	}
	return clientError
}
