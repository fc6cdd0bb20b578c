package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Job is one image on its way through the stages. Whoever received it from a channel owns
// it.
type Job struct {
	provision.Task

	ended chan struct{} // closed when the job has ended
	trace jobTrace

	late     <-chan error // of a stage that does not come back: delivers its error should it ever
	stuckErr error        // why it was given up

	// Guarded by jobs.mu.
	deliveries []*delivery // messages waiting for this image
	atBegin    int         // how many of them there were when the attempt began
	stuck      bool        // its stage does not come back
	place      place
	cancel     context.CancelCauseFunc // of the attempt that runs
}

// orphaned reports whether all messages of the job are lost. A job from the
// journal waits for none and is never orphaned. jobs.mu is held.
func (j *Job) orphaned() bool {
	return len(j.deliveries) > 0 && !slices.ContainsFunc(j.deliveries, func(d *delivery) bool { return !d.lost })
}

// jobs are the images being worked on, at most one job an image, and the waiting ones.
type jobs struct {
	mu      sync.Mutex
	byImage map[int64]*Job
	retryAt map[int64]time.Time // pending images without a job: when they are taken up without a message
	wake    chan struct{}       // buffered by one: an image was put into retryAt
	ended   map[verdict]int     // jobs since the start
}

func newJobs() *jobs {
	return &jobs{
		byImage: map[int64]*Job{}, retryAt: map[int64]time.Time{}, wake: make(chan struct{}, 1),
		ended: map[verdict]int{},
	}
}

// take makes the image's job, or finds the one under way. The delivery waits for
// it in both cases. If the image's stage does not come back, there is no job to wait for.
func (js *jobs) take(image int64, d *delivery) (job *Job, fresh bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	job, found := js.byImage[image]
	if !found {
		progress := &provision.Progress{}
		job = &Job{
			Task:  provision.Task{Image: store.Image{ID: image}, Progress: progress},
			ended: make(chan struct{}), place: place{state: jobWaiting, since: time.Now(), progress: progress},
		}
		js.byImage[image] = job
		delete(js.retryAt, image)
	}
	if job.stuck {
		return nil, false
	}
	if d != nil {
		job.deliveries = append(job.deliveries, d)
		job.trace.join(d)
	}
	return job, !found
}

// end frees a job's image for the next one and returns the waiting messages. retryAt
// says when the image is taken up by itself, given the number of messages; nil if it is
// not.
func (js *jobs) end(job *Job, v verdict, retryAt func(messages int) time.Time) (waiting []*delivery, atBegin int) {
	js.mu.Lock()
	js.ended[v]++
	delete(js.byImage, job.Image.ID)
	if retryAt != nil {
		js.retryAt[job.Image.ID] = retryAt(len(job.deliveries))
	}
	waiting, atBegin = job.deliveries, job.atBegin
	js.mu.Unlock()
	js.wakeUp()
	return waiting, atBegin
}

// retry puts waiting images into retryAt, unless they are there or have a job. It
// returns how many of them were new, and how many images wait now.
func (js *jobs) retry(images []store.Image, at time.Time) (added, waiting int) {
	js.mu.Lock()
	for _, img := range images {
		if _, waits := js.retryAt[img.ID]; waits || js.byImage[img.ID] != nil {
			continue
		}
		added++
		js.retryAt[img.ID] = at
	}
	waiting = len(js.retryAt)
	js.mu.Unlock()
	js.wakeUp()
	return added, waiting
}

// hasten makes the matching images due now.
func (js *jobs) hasten(match func(image int64) bool) {
	now := time.Now()
	js.mu.Lock()
	for id, at := range js.retryAt {
		if match(id) && at.After(now) {
			js.retryAt[id] = now
		}
	}
	js.mu.Unlock()
	js.wakeUp()
}

// wakeUp wakes awaitDue.
func (js *jobs) wakeUp() {
	select {
	case js.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// awaitDue waits until images are due and returns them. It returns none when it was only
// woken, or ctx ended.
func (js *jobs) awaitDue(ctx context.Context) []int64 {
	js.mu.Lock()
	now, next := time.Now(), time.Hour
	var ids []int64
	for id, at := range js.retryAt {
		if at.After(now) {
			next = min(next, at.Sub(now))
			continue
		}
		ids = append(ids, id)
	}
	js.mu.Unlock()
	if len(ids) > 0 {
		return ids
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-js.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// summary writes one line about all jobs.
func (js *jobs) summary(log *zerolog.Event) {
	js.mu.Lock()
	defer js.mu.Unlock()
	total := 0
	for v, n := range js.ended {
		log, total = log.Int(string(v), n), total+n
	}
	log.Int("jobs", total).Msg("stopped")
}

// holding returns the job with the task.
func (js *jobs) holding(t *provision.Task) *Job {
	js.mu.Lock()
	defer js.mu.Unlock()
	return js.byImage[t.Image.ID]
}

// due returns when a waiting image is taken up; zero if it does not wait.
func (js *jobs) due(image int64) time.Time {
	js.mu.Lock()
	defer js.mu.Unlock()
	return js.retryAt[image]
}

// working returns the images with a job.
func (js *jobs) working() map[int64]bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	ids := make(map[int64]bool, len(js.byImage))
	for id := range js.byImage {
		ids[id] = true
	}
	return ids
}

// idle reports whether no image is on its way through the stages.
func (js *jobs) idle() bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	return len(js.byImage) == 0
}

// busy reports whether any job is under way and not stuck.
func (js *jobs) busy() bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, job := range js.byImage {
		if !job.stuck {
			return true
		}
	}
	return false
}

// messageIDs returns the ids of a job's messages, each once.
func (js *jobs) messageIDs(job *Job) []string {
	js.mu.Lock()
	defer js.mu.Unlock()
	var ids []string
	for _, d := range job.deliveries {
		if !slices.Contains(ids, d.msg.ID) {
			ids = append(ids, d.msg.ID)
		}
	}
	return ids
}

// begin opens an attempt at a stage for a job and its messages.
func (p *Pipeline) begin(ctx context.Context, job *Job, st store.Stage) error {
	if err := p.record.Begin(ctx, &job.Task, st, p.jobs.messageIDs(job)...); err != nil {
		return err
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.Int64("image.attempt", job.Attempt.N))
	p.jobs.noteBegin(job)
	p.jobs.moved(job, st, jobWorking)
	return nil
}

// noteBegin notes how many messages waited when the attempt began.
func (js *jobs) noteBegin(job *Job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	job.atBegin = len(job.deliveries)
}

// lease returns the context of one attempt. It ends after the stage's limit, and when the
// job is orphaned.
func (js *jobs) lease(work context.Context, st stage, job *Job) (context.Context, func()) {
	ctx, end := context.WithTimeoutCause(work, st.limit, fmt.Errorf("%s: %w after %s", st.name, errTimeout, st.limit))
	ctx, cancel := context.WithCancelCause(ctx)
	js.mu.Lock()
	defer js.mu.Unlock()
	job.cancel = cancel
	if job.orphaned() {
		cancel(errLeaseLost)
	}
	return ctx, func() {
		js.mu.Lock()
		job.cancel = nil
		js.mu.Unlock()
		cancel(nil)
		end()
	}
}

// loseMessage ends the jobs with no other message: another host may be at the same image
// now. Their attempts are rolled back and can no longer commit. The image waits
// for its message.
func (js *jobs) loseMessage(d *delivery) {
	js.mu.Lock()
	defer js.mu.Unlock()
	d.lost = true
	for _, job := range js.byImage {
		if job.cancel != nil && job.orphaned() {
			job.cancel(errLeaseLost)
		}
	}
}

// replace puts a new job in the place of a stuck one: the stage may still write to its
// own at any time.
func (js *jobs) replace(job *Job, img store.Image) *Job {
	js.mu.Lock()
	defer js.mu.Unlock()
	left := &Job{
		Task:  provision.Task{Image: img, Attempt: job.Attempt, Began: job.Began},
		ended: make(chan struct{}), deliveries: job.deliveries, atBegin: job.atBegin, place: job.place,
		trace: jobTrace{job: job.trace.job},
	}
	left.place.state, left.place.since = jobStuck, time.Now()
	js.byImage[img.ID] = left
	return left
}

// markStuck lets nobody wait for the job any more, and returns its messages.
func (js *jobs) markStuck(job *Job) (waiting []*delivery) {
	js.mu.Lock()
	defer js.mu.Unlock()
	waiting, job.deliveries, job.stuck = job.deliveries, nil, true
	return waiting
}

// finish ends a job: its image is free for the next one, and its messages learn the
// outcome.
func (p *Pipeline) finish(work context.Context, job *Job, o outcome) {
	var retryAt func(messages int) time.Time
	if o.verdict == retry && !o.noAutoRetry {
		retryAt = func(messages int) time.Time {
			due := time.Now().Add(o.delay)
			if messages > 0 && !p.cfg.suspect(job.Image) { // its message ought to be faster
				due = due.Add(p.cfg.Unclaimed)
			}
			return due
		}
	}
	waiting, atBegin := p.jobs.end(job, o.verdict, retryAt)
	p.metrics.stage.jobEnded(o.verdict)
	job.trace.end(o.verdict)
	if s := job.Image.State; s == store.StateActive || s.Refused() {
		p.health.Breaker.Forget(job.Image.ID)
		p.host.Forget(job.Image.ID)
	}
	defer close(job.ended)
	for i, d := range waiting {
		late := i >= atBegin && (o.verdict == vanished || o.verdict == superseded)
		if late { // it tells of the object as it was after we looked
			p.messages.acknowledge(work, d, returned)
			continue
		}
		p.messages.acknowledge(work, d, o)
	}
}
