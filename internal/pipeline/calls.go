package pipeline

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"imagemanager.internal/internal/queue"
)

// Calls to the queue that fail, beside those that bring messages: what is said of them.

// errUnsettled says that messages cannot be kept from other consumers for as long as
// their images take, or not be deleted afterwards.
var errUnsettled = errors.New("messages cannot be held or settled")

// apiCalls are the names under which an operator knows what the queue client does.
var apiCalls = map[string]string{
	"extend": "ChangeMessageVisibility", "release": "ChangeMessageVisibility", "delete": "DeleteMessage",
	"dead-letter": "SendMessage",
}

// quiet lets one line of a kind pass every ten seconds.
type quiet struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (q *quiet) allows(kind string, at time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[kind]; ok && at.Sub(last) < 10*time.Second {
		return false
	}
	if q.last == nil {
		q.last = map[string]time.Time{}
	}
	q.last[kind] = at
	return true
}

// callFailed reports a failed call that the queue client is going to try again.
func (p *Pipeline) callFailed(operation string, err error) {
	class := string(queue.Classify(err))
	if p.quiet.allows(operation+" "+class, time.Now()) {
		p.Log.Warn().Err(err).Str("call", apiCalls[operation]).Str("class", class).
			Msg("a call to the queue failed; it is tried again")
	}
}

// settles says why no message can be held or settled, and what to do; nil while they can.
func (p *Pipeline) settles() error {
	call, err := p.Queue.Trouble()
	if err == nil {
		return nil
	}
	remedy := "it is tried again every few seconds"
	switch queue.Classify(err) {
	case queue.Denied:
		remedy = "allow sqs:" + call + " on the queue"
	case queue.NotFound:
		remedy = "see to SQS_QUEUE_URL and AWS_REGION"
	}
	return fmt.Errorf("%w: %s fails: %s: %s; intake goes on by itself once it succeeds",
		errUnsettled, call, queue.Classify(err), remedy)
}
