package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/queue"
)

// deafQueue does not heed the end of a poll.
type deafQueue struct {
	queue.API
	end chan struct{}
}

func (q deafQueue) ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	<-q.end
	return &sqs.ReceiveMessageOutput{}, nil
}

// A poll that does not come back is for a restart to mend. That no permit is free, for
// however long, is not.
func TestStuckPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		end := make(chan struct{})
		p.messages.queue = queue.New(deafQueue{end: end}, queue.Config{URL: "http://q", Wait: 20 * time.Second})
		ctx, stop := context.WithCancel(t.Context())
		for range cap(p.messages.permits) {
			p.messages.permits <- struct{}{}
		}
		go p.intake(ctx, ctx, make(chan *Job))
		time.Sleep(10 * time.Hour) //nolint:forbidigo // of the bubble's clock
		if err := p.health.Pulse.Stuck(); err != nil {
			t.Errorf("no room: %v", err)
		}
		<-p.messages.permits
		time.Sleep(time.Minute) //nolint:forbidigo // of the bubble's clock
		if err := p.health.Pulse.Stuck(); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // of the bubble's clock
		if err := p.health.Pulse.Stuck(); !errors.Is(err, health.ErrStuck) || p.health.Reasons()[health.Stuck] == nil {
			t.Errorf("a poll that does not come back: %v", err)
		}
		stop()
		close(end)
		synctest.Wait()
	})
}
