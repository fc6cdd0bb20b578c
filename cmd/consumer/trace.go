package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func traceCommand() *cobra.Command {
	return completing(withTable(&cobra.Command{
		Use:   "trace <key|image>",
		Short: "Show where the time of an image went",
		Long: `Trace prints the journal of an image as a waterfall: every wait, every attempt at a
stage and its steps, with the time that each took. An image that became due again has
a waterfall for each time; further snapshots have none. Of a key it is the newest
version. "consumer help names" says how else to name an image.`,
		Example: `  consumer trace images/debian.tar
  consumer trace 17 --json | jq '.runs[].took_ms'`,
		Annotations: exits(3, 5),
		RunE:        looking(showTrace),
	}), imageKeys, imageIDs)
}

// imageTrace is what trace shows.
type imageTrace struct {
	Image   int64       `json:"image_id"`
	Key     string      `json:"s3_key"`
	State   store.State `json:"state"`
	TraceID string      `json:"trace_id"`
	Runs    []imageRun  `json:"runs"`
}

func showTrace(ctx context.Context, c *call) error {
	images, err := c.find(ctx, c.arg())
	if err != nil {
		return err
	}
	img := images[len(images)-1]
	events, err := c.store.History(ctx, img.ID)
	if err != nil {
		return err
	}
	t := imageTrace{img.ID, img.Key, img.State, img.TraceID, nonNil(runsOf(events, time.Now()))}
	if c.asJSON {
		return printJSON(c.out, t)
	}
	fmt.Fprintf(c.out, "image %d, %s: %s\n", t.Image, quoted(t.Key), t.State)
	for _, r := range t.Runs {
		if err := c.printRun(r); err != nil {
			return err
		}
	}
	return nil
}

// The letters of a bar.
const (
	barWork = "█"
	barWait = "░"
)

// noTerminal is how many letters a line has when nobody says.
const noTerminal = 100

// printRun prints a run as a waterfall, in the width of the terminal.
func (o *output) printRun(r imageRun) error {
	end := string(r.State)
	if r.Ended == nil {
		end = "goes on"
	}
	fmt.Fprintf(o.out, "\n%s, %s after %s\n", r.Began.UTC().Format(dateTime), end, tookText(r.TookMS))
	t := o.table("WHAT", "TOOK", "SHARE", "OUTCOME", "")
	t.room = 0 // the bars take what is left
	for _, s := range r.Spans {
		t.row(s.name(), tookText(s.TookMS), fmt.Sprintf("%.1f %%", 100*float64(s.TookMS)/float64(max(r.TookMS, 1))),
			s.outcome(), "")
	}
	width := barWidth(t, o.room)
	for i, s := range r.Spans {
		t.rows[i+1][4] = s.bar(r, width)
	}
	return t.flush()
}

// barWidth is what the other columns leave for the bars.
func barWidth(t *table, room int) int {
	const least, most = 10, 120
	if room == 0 {
		room = noTerminal
	}
	for _, w := range t.widths() {
		room -= w + len(gap)
	}
	return min(max(room+len(gap), least), most)
}

// bar is the place of a span in its run. What took any time is seen.
func (s journalSpan) bar(r imageRun, width int) string {
	total := float64(max(r.TookMS, 1))
	at := func(ms int64) int { return int(float64(ms) / total * float64(width)) }
	from := min(at(s.Began.Sub(r.Began).Milliseconds()), width-1)
	to := min(max(at(s.Began.Sub(r.Began).Milliseconds()+s.TookMS), from+1), width)
	letter := barWork
	if s.Kind == spanWait {
		letter = barWait
	}
	return strings.Repeat(" ", from) + strings.Repeat(letter, to-from)
}

// name is what the time of a span went to. Steps are below their attempt.
func (s journalSpan) name() string {
	switch s.Kind {
	case spanStep:
		return "  " + s.Step
	case spanWait:
		return "wait for " + string(s.Stage)
	case spanAttempt:
	}
	if s.Try > 1 {
		return fmt.Sprintf("%s, try %d", s.Stage, s.Try)
	}
	return string(s.Stage)
}

func (s journalSpan) outcome() string {
	switch {
	case s.Kind == spanAttempt && s.Ended == nil:
		return "goes on"
	case s.Kind == spanAttempt:
		return s.Outcome
	}
	return ""
}

// tookText is a duration in milliseconds, as exact as people want it.
func tookText(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	}
	return d.String()
}
