package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

// mostPending is how many pending images status lists.
const mostPending = 20

// dateTime is how people are shown a moment. All are in UTC.
const dateTime = "2006-01-02 15:04:05 MST"

// The colours of a terminal (ECMA-48, SGR).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// in returns text in a colour, if the screen has colours.
func (o *output) in(colour, text string) string {
	if !o.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// fact is a line with a title.
type fact [2]string

// printFacts prints facts, their titles in a column. One without a text is left out.
func (o *output) printFacts(facts []fact) {
	for _, f := range facts {
		if f[1] != "" {
			fmt.Fprintf(o.out, "%11s  %s\n", f[0]+":", f[1])
		}
	}
}

// printStatus prints the report for people.
func (c *call) printStatus(r *statusReport) error {
	colour, health := r.health()
	fmt.Fprintf(c.out, "%s consumer: %s\n", c.in(colour, "●"), health)
	for _, line := range r.conditions() {
		fmt.Fprintf(c.out, "  %s\n", line)
	}
	c.printFacts(c.facts(r))
	if err := c.printWork(r); err != nil {
		return err
	}
	return c.printPending(r)
}

// health says in one line how the daemon is.
func (r *statusReport) health() (colour, text string) {
	switch {
	case !r.Running:
		return yellow, "not running; `systemctl start consumer`, or `consumer run`, starts it"
	case r.Daemon == nil:
		return yellow, "runs, but does not answer on " + r.NoAnswer
	case r.Daemon.Ready:
		return green, "ready"
	}
	return red, "not ready, and takes no work"
}

// conditions are the reasons why no work is taken, with what to do.
func (r *statusReport) conditions() []string {
	if r.Daemon == nil {
		return nil
	}
	var lines []string
	for _, c := range r.Daemon.Conditions {
		if c.Active {
			text := strings.TrimPrefix(c.Text, string(c.Name)+": ")
			lines = append(lines, fmt.Sprintf("%s: %s", c.Name, oneLine(text)))
		}
	}
	return lines
}

// facts are the lines of the report with a title.
func (c *call) facts(r *statusReport) []fact {
	facts := c.identity(r)
	facts = append(facts, fact{"Pool", poolText(r.Pool, r.NoPool)},
		fact{"Images", imagesText(r.Images)},
		fact{"Snapshots", r.snapshotsText()},
		fact{"Quarantine", quarantineText(r.Quarantined)})
	if p := r.pipeline(); p != nil && p.Reconcile != nil {
		facts = append(facts, fact{"Reconcile", reconcileText(p.Reconcile)})
	}
	return facts
}

// identity says which daemon it is, or which one it would be.
func (c *call) identity(r *statusReport) []fact {
	state := r.StateDir
	if r.ReadOnly {
		state += ", read-only for this user: nothing can be changed"
	}
	policy, bucket, prefix, queue := c.cfg.Policy, c.cfg.Bucket, c.cfg.Prefix, c.cfg.QueueURL
	version := "version " + metric.Version()
	if d := r.Daemon; d != nil {
		policy, bucket, prefix, queue = d.Policy, d.Bucket, d.Prefix, d.Queue
		version = fmt.Sprintf("version %s, PID %d, since %s", d.Version, d.PID, since(d.Started))
	} else if r.Running {
		version = r.Holder
	}
	facts := []fact{{"Program", version}, {"State", state}}
	if bucket != "" {
		facts = append(facts, fact{"Bucket", fmt.Sprintf("s3://%s/%s", bucket, prefix)})
	}
	if queue != "" {
		facts = append(facts, fact{"Queue", queue + held(r.pipeline())})
	}
	return append(facts, fact{"Policy", policy})
}

// held says how many messages the daemon holds.
func held(p *pipeline.Status) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("; %d of at most %s held", p.Queue.Held, count(p.Queue.Permits, "message"))
}

func poolText(s *devmapper.Status, why string) string {
	if s == nil {
		return why
	}
	text := fmt.Sprintf("%s; data %s, metadata %s", s.Mode, share(s.UsedData, s.TotalData),
		share(s.UsedMetadata, s.TotalMetadata))
	if s.NeedsCheck {
		text += "; needs a check: stop the daemon, and run `consumer pool repair`"
	}
	return text
}

// imagesText counts the images. The numbers behind the first add up to it.
func imagesText(counts map[store.State]int) string {
	total, parts := 0, []string(nil)
	for _, state := range store.States() {
		if n := counts[state]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if total == 0 {
		return "none"
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}

// snapshotsText counts the snapshots. To the journal they are active from the start on.
func (r *statusReport) snapshotsText() string {
	if p := r.pipeline(); p != nil && p.Activating != nil {
		return fmt.Sprintf("%d; activating after the start: %d of %d done", r.Snapshots, p.Activating.Done,
			p.Activating.Total)
	}
	return fmt.Sprintf("%d active", r.Snapshots)
}

func quarantineText(messages int64) string {
	if messages == 0 {
		return "empty"
	}
	return fmt.Sprintf("%s: `consumer quarantine list`", count(int(messages), "message"))
}

func reconcileText(r *pipeline.ReconcileStatus) string {
	if r.Error != "" {
		return fmt.Sprintf("left undone, %s: %s", ago(r.Ended), oneLine(r.Error))
	}
	return "nothing is left to do, " + ago(r.Ended)
}

// printWork prints the stages and the images in them.
func (c *call) printWork(r *statusReport) error {
	p := r.pipeline()
	if p == nil {
		return nil
	}
	fmt.Fprintln(c.out)
	stages := c.table("STAGE", "WORKERS", "BUSY", "BLOCKED")
	for _, s := range p.Stages {
		stages.row(string(s.Name), fmt.Sprint(s.Workers), fmt.Sprint(s.Busy), fmt.Sprint(s.Blocked))
	}
	if err := stages.flush(); err != nil || len(p.Jobs) == 0 {
		return err
	}
	fmt.Fprintln(c.out)
	jobs := c.table("IMAGE", "KEY", "STAGE", "STATE", "DONE", "SINCE")
	for _, j := range p.Jobs {
		jobs.row(fmt.Sprint(j.Image), dash(quoted(j.Key)), dash(string(j.Stage)), string(j.State), doneText(j),
			ago(j.Since))
	}
	return jobs.flush()
}

// doneText says how far a job has come in its stage.
func doneText(j pipeline.JobStatus) string {
	switch {
	case j.Total > 0:
		return share(j.Done, j.Total)
	case j.Done > 0:
		return units.BytesSize(float64(j.Done))
	}
	return "-"
}

// printPending prints the images that wait: those that are not among the jobs.
func (c *call) printPending(r *statusReport) error {
	waiting := r.waiting()
	if len(waiting) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	t := c.table("IMAGE", "KEY", "STAGE", "STATE", "FAILURES", "SINCE", "REASON")
	t.room = 0 // what to do is at the end of the reason
	for _, img := range waiting[:min(mostPending, len(waiting))] {
		t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.Stage), img.Doing, fmt.Sprint(img.Failures),
			ago(img.UpdatedAt), oneLine(img.Reason))
	}
	err := t.flush()
	if more := len(waiting) - mostPending; more > 0 {
		fmt.Fprintf(c.out, "… and %d more: `consumer images --state pending`\n", more)
	}
	return err
}

func (r *statusReport) waiting() []pendingImage {
	jobs := map[int64]bool{}
	if p := r.pipeline(); p != nil {
		for _, j := range p.Jobs {
			jobs[j.Image] = true
		}
	}
	var waiting []pendingImage
	for _, img := range r.Pending {
		if !jobs[img.ID] {
			waiting = append(waiting, img)
		}
	}
	return waiting
}

// share says how much of something is used or done.
func share(part, whole int64) string {
	return fmt.Sprintf("%s of %s (%.1f %%)", units.BytesSize(float64(part)), units.BytesSize(float64(whole)),
		100*float64(part)/float64(max(whole, 1)))
}

// count is a number of things.
func count(n int, thing string) string { return countOf(n, thing, thing+"s") }

// countOf is count for a thing with a plural of its own.
func countOf(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// since is a moment, and how long ago it was.
func since(t time.Time) string { return fmt.Sprintf("%s (%s)", t.UTC().Format(dateTime), ago(t)) }
