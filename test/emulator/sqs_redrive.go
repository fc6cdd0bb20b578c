package emulator

import (
	"context"
	"maps"
	"slices"
	"time"
)

// bury moves a message that was received too often to the dead-letter queue, with its id
// and the time it was sent. It reports false, and the message stays, if that is to fail
// on demand.
func (q *queues) bury(k, dead *queue, m *message, now time.Time) bool {
	q.faults.count(opRedrive)
	if f, hit := q.faults.take(opRedrive, dead.name); hit && f.Status != 0 {
		return false
	}
	k.remove(m)
	m.source, m.here = k.arn, 0
	dead.add(m, now, 0)
	return true
}

type sourceQueuesOutput struct {
	QueueUrls []string `json:"queueUrls" query:"QueueUrl"`
}

func (q *queues) listDeadLetterSourceQueues(_ context.Context, req sqsRequest, in *queueInput) (sourceQueuesOutput,
	error,
) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := sourceQueuesOutput{QueueUrls: []string{}}
	dead, err := q.find(in.QueueUrl)
	if err != nil {
		return out, err
	}
	for _, name := range slices.Sorted(maps.Keys(q.named)) {
		if to, _ := q.redrive(q.named[name]); to == dead {
			out.QueueUrls = append(out.QueueUrls, req.base+"/"+Account+"/"+name)
		}
	}
	return out, nil
}

// moveTask is a finished StartMessageMoveTask: here they take no time.
type moveTask struct {
	TaskHandle                        string `json:",omitempty"`
	Status                            string
	SourceArn                         string
	DestinationArn                    string `json:",omitempty"`
	ApproximateNumberOfMessagesMoved  int
	ApproximateNumberOfMessagesToMove int
	StartedTimestamp                  int64 // milliseconds since 1970
}

type startMoveInput struct {
	SourceArn, DestinationArn string
}

type startMoveOutput struct {
	TaskHandle string
}

// startMessageMoveTask moves the visible messages of a dead-letter queue to where each
// came from, or to one queue. They are new messages there.
func (q *queues) startMessageMoveTask(_ context.Context, _ sqsRequest, in *startMoveInput) (startMoveOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	from := q.byARN(in.SourceArn)
	if from == nil {
		return startMoveOutput{},
			errNoResource.with("The resource that you specified for the SourceArn parameter doesn't exist.")
	}
	if !q.isDeadLetterQueue(from) {
		return startMoveOutput{}, errParameter.with("Source queue must be configured as a Dead Letter Queue.")
	}
	if in.DestinationArn != "" && q.byARN(in.DestinationArn) == nil {
		return startMoveOutput{},
			errNoResource.with("The resource that you specified for the DestinationArn parameter doesn't exist.")
	}
	from.settle(now)
	task := moveTask{
		TaskHandle: newToken(), Status: "COMPLETED", SourceArn: in.SourceArn,
		DestinationArn: in.DestinationArn, StartedTimestamp: now.UnixMilli(),
	}
	task.ApproximateNumberOfMessagesToMove = from.visible.Len()
	task.ApproximateNumberOfMessagesMoved = q.exhume(from, in.DestinationArn, now)
	q.moves = append(q.moves, task)
	return startMoveOutput{task.TaskHandle}, nil
}

// exhume moves the visible messages, and returns how many. One whose source is gone
// stays.
func (q *queues) exhume(from *queue, destination string, now time.Time) int {
	moved := 0
	for e := from.visible.Front(); e != nil; {
		m, _ := e.Value.(*message)
		e = e.Next()
		arn := destination
		if arn == "" {
			arn = m.source
		}
		to := q.byARN(arn)
		if to == nil {
			continue
		}
		from.remove(m)
		to.add(&message{
			id: newID(), body: m.body, attributes: m.attributes, trace: m.trace, sender: m.sender,
			group: m.group, sent: now,
		}, now, 0)
		moved++
	}
	return moved
}

func (q *queues) isDeadLetterQueue(k *queue) bool {
	for _, source := range q.named {
		if to, _ := q.redrive(source); to == k {
			return true
		}
	}
	return false
}

type listMovesInput struct {
	SourceArn  string
	MaxResults *int
}

type listMovesOutput struct {
	Results []moveTask
}

// listMessageMoveTasks lists the newest first. AWS gives the handle of running tasks
// only.
func (q *queues) listMessageMoveTasks(_ context.Context, _ sqsRequest, in *listMovesInput) (listMovesOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := listMovesOutput{Results: []moveTask{}}
	limit := 1
	if in.MaxResults != nil {
		limit = min(10, *in.MaxResults)
	}
	for _, t := range slices.Backward(q.moves) {
		if t.SourceArn == in.SourceArn && len(out.Results) < limit {
			t.TaskHandle = ""
			out.Results = append(out.Results, t)
		}
	}
	return out, nil
}

type cancelMoveInput struct {
	TaskHandle string
}

// cancelMessageMoveTask always fails: no task is ever running.
func (q *queues) cancelMessageMoveTask(_ context.Context, _ sqsRequest, _ *cancelMoveInput) (nothing, error) {
	return nothing{}, errNoResource.with("No running task has that handle.")
}
