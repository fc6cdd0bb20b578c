package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// someReport is that of a daemon at work. Its times are relative to now.
func someReport(lacks health.Reasons) *statusReport {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	p := &pipeline.Status{
		Jobs: []pipeline.JobStatus{
			{
				Image: 43, Key: "images/debian/12.tar", Stage: store.StageDownload, State: "working",
				Since: ago(3 * time.Second), Done: 104 << 20, Total: 162<<20 + 1<<19,
			},
			{
				Image: 44, Key: "images/build/1207.tar", Stage: store.StageUnpack, State: "working",
				Since: ago(19 * time.Second), Done: 61 << 20, Total: 480 << 20,
			},
			{Image: 46, Key: "images/build/1208.tar", State: "waiting", Since: ago(time.Second)},
		},
		Stages: []pipeline.StageStatus{
			{Name: store.StageDownload, Workers: 5, Busy: 1},
			{Name: store.StageUnpack, Workers: 2, Busy: 1},
			{Name: store.StageActivate, Workers: 1},
		},
		Queue: pipeline.QueueStatus{Held: 3, Permits: 8},
		Pool: &devmapper.Status{
			Mode: devmapper.ModeReadWrite, UsedData: 62 << 30, TotalData: 100 << 30, UsedMetadata: 18 << 20,
			TotalMetadata: 229 << 20,
		},
		Reconcile: &pipeline.ReconcileStatus{Ended: ago(4 * time.Minute)},
	}
	if lacks[health.PoolLow] != nil { // as poolLow says
		p.Pool.UsedData = p.Pool.TotalData * 959 / 1000
	}
	waiting := store.Image{ID: 41, Object: store.Object{Key: "images/late.tar"}, UpdatedAt: ago(40 * time.Second)}
	waiting.Stage, waiting.Failures, waiting.Reason = store.StageDownload, 1, "download: timed out after 5m0s"
	return &statusReport{
		Running: true, StateDir: "/var/lib/consumer", Snapshots: 40, Pool: p.Pool,
		Images: map[store.State]int{
			store.StatePending: 4, store.StateActive: 38, store.StateRejected: 2, store.StateRemoved: 2,
		},
		Pending: []pendingImage{{waiting, doingWait}},
		Daemon: &daemonStatus{
			Version: "v1.4.0", PID: 4711, Started: ago(3 * time.Hour), Policy: "distro", Bucket: "my-bucket",
			Prefix: "images/", Queue: "https://sqs.us-east-1.amazonaws.com/111122223333/images",
			Ready: lacks.Err() == nil, Conditions: conditionStatuses(lacks), Pipeline: p,
		},
	}
}

// someEvents are what led to someReport.
func someEvents() []store.Event {
	at := func(back time.Duration, image int64, kind store.EventKind, stage store.Stage) store.Event {
		return store.Event{At: time.Now().Add(-back), Image: image, Kind: kind, Stage: stage}
	}
	failed := at(40*time.Second, 41, store.EventFailed, store.StageDownload)
	failed.Verdict, failed.Reason = "retry", "download: timed out after 5m0s"
	formatted := at(18*time.Second, 44, store.EventStep, store.StageUnpack)
	formatted.Detail.Device = &store.Device{ID: 87, State: store.DeviceFormatted}
	queued := at(time.Second, 46, store.EventQueued, "")
	queued.Detail.Object = &store.Object{Bucket: "my-bucket", Key: "images/build/1208.tar", ETag: "9b2c"}
	return []store.Event{
		failed, at(19*time.Second, 44, store.EventBegun, store.StageUnpack), formatted,
		at(3*time.Second, 43, store.EventBegun, store.StageDownload), queued,
	}
}

// onDay runs a test on one day at one time.
func onDay(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(time.Date(2026, 11, 27, 7, 11, 2, 0, time.UTC))) // by the test's own clock
		test(t)
	})
}

// screen is a call that prints to a terminal of this width.
func screen(out *strings.Builder, width int) *call {
	return &call{system: &system{}, output: &output{out: out, room: width}}
}

// poolLow is a reason to take no work.
var poolLow = health.Reasons{health.PoolLow: fmt.Errorf("%w: 4.1 %% of its data is free, 10.0 %% is the reserve: "+
	"`consumer pool grow --data-size` adds space", provision.ErrPoolLow)}

// The page for operators shows the screens of status and of watch as they are.
func TestPageShowsTheScreens(t *testing.T) {
	const page = "../../docs/operating.md"
	onDay(t, func(t *testing.T) {
		var text strings.Builder
		if err := screen(&text, 0).printStatus(someReport(poolLow)); err != nil {
			t.Fatal(err)
		}
		inPage(t, page, "consumer status", text.String())
		lines, err := screen(&text, 0).picture(someReport(nil), someEvents(), 100, 30)
		if err != nil {
			t.Fatal(err)
		}
		inPage(t, page, "consumer watch", strings.Join(lines, "\n")+"\n")
	})
}

// inPage compares a block of a page, or writes it: the one behind the comment with this
// title.
func inPage(t *testing.T, path, title, text string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(page), "<!-- the screen of "+title+" -->\n```text\n")
	if !found {
		t.Fatalf("%s has no place for the screen of %s", path, title)
	}
	shown, rest, _ := strings.Cut(after, "```\n")
	if shown == text {
		return
	}
	if !*update {
		t.Errorf("%s: the screen of %s (`make docs` writes it again) is now:\n%s", path, title, text)
		return
	}
	whole := strings.TrimSuffix(string(page), after) + text + "```\n" + rest
	if !strings.HasPrefix(whole, before) {
		t.Fatal("the page would lose something")
	}
	if err := os.WriteFile(path, []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The picture fits every screen. On a narrow one the remedy is on several lines, and on a
// low one the events give way first.
func TestGoldenPictures(t *testing.T) {
	var all strings.Builder
	onDay(t, func(t *testing.T) {
		idle := &statusReport{NoPool: "none yet: run `consumer pool create`"}
		for _, c := range []struct {
			name          string
			report        *statusReport
			events        []store.Event
			width, height int
		}{
			{"wide", someReport(nil), someEvents(), 120, 40},
			{"takes no work, narrow", someReport(poolLow), someEvents(), 64, 30},
			{"low", someReport(nil), someEvents(), 80, 14},
			{"no daemon", idle, nil, 80, 24},
		} {
			var b strings.Builder
			lines, err := screen(&b, c.width).picture(c.report, c.events, c.width, c.height)
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) > c.height {
				t.Errorf("%s: %d lines", c.name, len(lines))
			}
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > c.width {
					t.Errorf("%s: %d letters: %s", c.name, n, line)
				}
			}
			fmt.Fprintf(&all, "# %s: %d x %d\n%s\n\n", c.name, c.width, c.height, strings.Join(lines, "\n"))
		}
	})
	same(t, "testdata/screens/watch.txt", all.String())
}

// Colours are for a screen that has them.
func TestColours(t *testing.T) {
	onDay(t, func(t *testing.T) {
		for _, colour := range []bool{false, true} {
			var b strings.Builder
			c := screen(&b, 80)
			c.colour = colour
			lines, err := c.picture(someReport(nil), nil, 80, 24)
			if err != nil || strings.Contains(strings.Join(lines, ""), "\x1b[32m●") != colour {
				t.Errorf("with colours: %t: %q, %v", colour, lines, err)
			}
		}
	})
}

// What is long is broken between words.
func TestWrapped(t *testing.T) {
	for text, want := range map[string]string{
		"short": "short", "  one two": "  one two", "  one two three": "  one two|    three",
		"averyveryverylongword x": "averyveryverylongword|    x", "": "",
	} {
		if have := strings.Join(wrapped(text, 10), "|"); have != want {
			t.Errorf("%q is broken as %q, want %q", text, have, want)
		}
	}
}

// A part that is there is seen, and a whole is full.
func TestBar(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        string
	}{
		{0, 100, "░░░░"},
		{1, 1 << 40, "█░░░"},
		{50, 100, "██░░"},
		{99, 100, "███░"},
		{100, 100, "████"},
		{300, 100, "████"},
		{5, 0, "░░░░"},
		{-1, 5, "░░░░"},
	} {
		if have := bar(c.part, c.whole, 4); have != c.want {
			t.Errorf("%d of %d: %s, want %s", c.part, c.whole, have, c.want)
		}
	}
}
