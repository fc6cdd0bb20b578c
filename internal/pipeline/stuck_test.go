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
	"imagemanager.internal/internal/store"
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

// The message of an image whose stage does not come back is asked about more and more
// seldom. When the stage comes back after all, the message is not hidden for long.
func TestMessageOfAStuckImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, q := newPipeline(t), newPatientQueue(notified("images/a.tar"))
		q.sent = time.Now()
		const silence = 20 * time.Minute
		first := true
		emptied := work(t, p, q, func(_ string, st store.Stage) error {
			if st == store.StageUnpack && first {
				first = false
				time.Sleep(silence) //nolint:forbidigo // of the bubble's clock: a system call does not come back
				return errors.New("too late")
			}
			return nil
		})
		if took := time.Since(q.sent); !emptied || took > 2*silence {
			t.Errorf("emptied %t, after %s", emptied, took)
		}
		if q.takes > 20 {
			t.Errorf("received %d times", q.takes)
		}
	})
}

// A stage that comes back soon finds its message back soon.
func TestMessageOfAnImageThatWasStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, q := newPipeline(t), newPatientQueue(notified("images/a.tar"))
		q.sent = time.Now()
		first := true
		work(t, p, q, func(_ string, st store.Stage) error {
			if st == store.StageUnpack && first {
				first = false
				time.Sleep(80 * time.Second) //nolint:forbidigo // of the bubble's clock: ten seconds too long
				return errors.New("too late")
			}
			return nil
		})
		if took := time.Since(q.sent); took > 3*time.Minute {
			t.Errorf("the message was settled after %s", took)
		}
	})
}
