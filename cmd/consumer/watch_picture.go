package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

const (
	gaugeWidth = 20 // letters of a bar
	leastRows  = 1  // of the jobs, however low the screen is
	// Letters in a line of a screen with room for all columns, and for most.
	wideScreen, narrowScreen = 100, 80
	// clock is the time of an event that happened just now.
	clock = "15:04:05"
)

// picture is the report as lines for a screen of this size. The newest events take the
// lines that are left.
func (c *call) picture(r *statusReport, events []store.Event, width, height int) ([]string, error) {
	var b strings.Builder
	o := *c.output
	o.out, o.room = &b, width
	o.printHead(r, width)
	o.printFacts(r.gauges())
	if p := r.pipeline(); p != nil {
		if err := o.printStages(p.Stages); err != nil {
			return nil, err
		}
		if err := o.printJobs(p.Jobs, max(leastRows, height-strings.Count(b.String(), "\n")-3)); err != nil {
			return nil, err
		}
	}
	const titles = 2 // an empty line, and the names of the columns
	if left := height - strings.Count(b.String(), "\n") - titles; left > 0 && len(events) > 0 {
		if err := o.printNewest(events[max(0, len(events)-left):]); err != nil {
			return nil, err
		}
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	return lines[:min(height, len(lines))], nil
}

// printHead prints how the daemon is. What to do is never cut off.
func (o *output) printHead(r *statusReport, width int) {
	colour, health := r.health()
	if d := r.Daemon; d != nil {
		health += fmt.Sprintf("; version %s, PID %d", d.Version, d.PID)
	}
	mark := "● consumer: "
	for i, line := range wrapped(mark+health, width) {
		if i == 0 {
			line = o.in(colour, "●") + strings.TrimPrefix(line, "●")
		}
		fmt.Fprintln(o.out, line)
	}
	for _, reason := range r.conditions() {
		for _, line := range wrapped("  "+reason, width) {
			fmt.Fprintln(o.out, line)
		}
	}
}

// gauges are what is full to some degree, and the numbers beside.
func (r *statusReport) gauges() []fact {
	var facts []fact
	if s := r.Pool; s != nil {
		facts = append(facts, fact{"Pool data", gauge(s.UsedData, s.TotalData) + notReadWrite(s)},
			fact{"Metadata", gauge(s.UsedMetadata, s.TotalMetadata)})
	} else {
		facts = append(facts, fact{"Pool", r.NoPool})
	}
	if p := r.pipeline(); p != nil {
		q := p.Queue
		facts = append(facts, fact{"Queue", fmt.Sprintf("%s  %d of at most %s held",
			bar(int64(q.Held), int64(q.Permits), gaugeWidth), q.Held, count(q.Permits, "message"))})
	}
	return append(facts, fact{"Images", imagesText(r.Images)}, fact{"Quarantine", quarantineText(r.Quarantined)})
}

func notReadWrite(s *devmapper.Status) string {
	if s.Mode == devmapper.ModeReadWrite {
		return ""
	}
	return "; " + string(s.Mode)
}

func gauge(part, whole int64) string {
	return bar(part, whole, gaugeWidth) + "  " + share(part, whole)
}

// bar shows a part of a whole. A part that is there is seen.
func bar(part, whole int64, width int) string {
	if whole <= 0 || part <= 0 {
		return strings.Repeat(barWait, width)
	}
	full := min(max(int(float64(part)/float64(whole)*float64(width)), 1), width)
	return strings.Repeat(barWork, full) + strings.Repeat(barWait, width-full)
}

// printStages prints a letter for each worker of a stage.
func (o *output) printStages(stages []pipeline.StageStatus) error {
	fmt.Fprintln(o.out)
	t := o.table("STAGE", "WORKERS", "")
	for _, s := range stages {
		text := fmt.Sprintf("%d of %d busy", s.Busy, s.Workers)
		if s.Blocked > 0 {
			text += fmt.Sprintf(", %d blocked by the next stage", s.Blocked)
		}
		idle := max(0, s.Workers-s.Busy-s.Blocked)
		t.row(string(s.Name), strings.Repeat(barWork, s.Busy)+strings.Repeat("▒", s.Blocked)+
			strings.Repeat(barWait, idle), text)
	}
	return t.flush()
}

// printJobs prints at most so many images at work. On a narrow screen it does without
// some columns.
func (o *output) printJobs(jobs []pipeline.JobStatus, most int) error {
	if len(jobs) == 0 {
		return nil
	}
	fmt.Fprintln(o.out)
	t := o.table("IMAGE", "KEY", "STAGE", "STATE", "DONE", "", "SINCE")
	if o.room < wideScreen {
		t.without("DONE")
	}
	if o.room < narrowScreen {
		t.without("SINCE")
	}
	for _, j := range jobs[:min(most, len(jobs))] {
		progress, done := "", ""
		if j.Total > 0 {
			progress = fmt.Sprintf("%s %3.0f %%", bar(j.Done, j.Total, gaugeWidth/2),
				100*float64(j.Done)/float64(j.Total))
			done = fmt.Sprintf("%s of %s", units.BytesSize(float64(j.Done)), units.BytesSize(float64(j.Total)))
		}
		t.row(fmt.Sprint(j.Image), dash(quoted(j.Key)), dash(string(j.Stage)), string(j.State), done, progress,
			ago(j.Since))
	}
	err := t.flush()
	if more := len(jobs) - most; more > 0 {
		fmt.Fprintf(o.out, "… and %d more\n", more)
	}
	return err
}

// printNewest prints events, each on a line of the screen.
func (o *output) printNewest(events []store.Event) error {
	fmt.Fprintln(o.out)
	t := o.table("TIME", "IMAGE", "STAGE", "EVENT", "DETAIL")
	for _, e := range events {
		t.row(e.At.UTC().Format(clock), fmt.Sprint(e.Image), dash(string(e.Stage)), string(e.Kind), detail(e))
	}
	return t.flush()
}

// wrapped breaks a text into lines. All but the first are indented.
func wrapped(text string, width int) []string {
	const indent = "    "
	var lines []string
	line := text[:len(text)-len(strings.TrimLeft(text, " "))]
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), indent+word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
