package pipeline

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/queue"
)

// deepQueue has a depth, and may refuse to tell it.
type deepQueue struct {
	roughQueue
	asked  map[string]int // by URL
	denied []string       // URLs, after a first answer
}

func (q *deepQueue) GetQueueAttributes(_ context.Context, in *sqs.GetQueueAttributesInput,
	_ ...func(*sqs.Options),
) (*sqs.GetQueueAttributesOutput, error) {
	q.asked[*in.QueueUrl]++
	if q.asked[*in.QueueUrl] > 1 && slices.Contains(q.denied, *in.QueueUrl) {
		return nil, &smithy.GenericAPIError{Code: "AccessDenied", Fault: smithy.FaultClient}
	}
	return &sqs.GetQueueAttributesOutput{Attributes: map[string]string{
		"ApproximateNumberOfMessages": "3", "ApproximateNumberOfMessagesNotVisible": "2",
		"ApproximateNumberOfMessagesDelayed": "1",
	}}, nil
}

const mainURL, deadURL = "http://127.0.0.1/q", "http://127.0.0.1/dead"

// A queue that cannot be asked has no depth, and the log says so once. The other has one.
func TestDepth(t *testing.T) {
	mainDepth := map[string]float64{
		"imagemanager_queue_depth_messages main visible":   3,
		"imagemanager_queue_depth_messages main in_flight": 2,
		"imagemanager_queue_depth_messages main delayed":   1,
	}
	deadDepth := map[string]float64{
		"imagemanager_queue_depth_messages dead_letter visible":   3,
		"imagemanager_queue_depth_messages dead_letter in_flight": 2,
		"imagemanager_queue_depth_messages dead_letter delayed":   1,
	}
	both := maps.Clone(mainDepth)
	maps.Copy(both, deadDepth)
	for _, tc := range []struct {
		name, dead string
		every      time.Duration
		denied     []string // after a first answer
		want       map[string]float64
		asked      int // about the queue itself
		warnings   int
	}{
		{"both", deadURL, time.Minute, nil, both, 10, 0},
		{"no dead-letter queue", "", time.Minute, nil, mainDepth, 10, 0},
		{"denied on the queue", deadURL, time.Minute, []string{mainURL}, deadDepth, 10, 1},
		{"denied on both", deadURL, time.Minute, []string{mainURL, deadURL}, map[string]float64{}, 10, 2},
		{"off", deadURL, 0, nil, map[string]float64{}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				p := newLoggingPipeline(t, zerolog.New(&log))
				reg := observe(p)
				q := &deepQueue{asked: map[string]int{}, denied: tc.denied}
				p.depths.queue = queue.New(q, queue.Config{URL: mainURL, DeadLetterURL: tc.dead})
				p.depths.every, p.depths.gauge = tc.every, p.metrics.queue.depth
				ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute+time.Second)
				defer stop()
				p.depths.watch(ctx)
				if got := series(t, reg); !maps.Equal(got, tc.want) {
					t.Errorf("%v, want %v", got, tc.want)
				}
				if n := strings.Count(log.String(), "sqs:GetQueueAttributes"); n != tc.warnings {
					t.Errorf("%d warnings: %s", n, &log)
				}
				if q.asked[mainURL] != tc.asked {
					t.Errorf("asked %d times in nine minutes", q.asked[mainURL])
				}
			})
		})
	}
}
