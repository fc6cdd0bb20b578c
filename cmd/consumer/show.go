package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func showCommand() *cobra.Command {
	return completing(withTable(&cobra.Command{
		Use:   "show <key|image>",
		Short: "Show one image in full: verdict, remedy, policy, changes, times, snapshots",
		Long: `Show prints all that the journal has on one image: its verdict with the whole reason
and what to do about it, the policy and every entry that it changed, the layers, the
times, the failures, and the snapshots. Nothing is shortened. Of a key it is the newest
version. "consumer help names" says how else to name an image.`,
		Example: `  consumer show images/debian.tar
  consumer show 17 --json | jq .adjustments`,
		SuggestFor:  []string{"inspect", "describe", "info"},
		Annotations: exits(3, 5),
		RunE:        looking(show),
	}), imageKeys, imageIDs)
}

// shownImage is what show prints.
type shownImage struct {
	store.Image
	WhatToDo    string             `json:"what_to_do"`
	Versions    int                `json:"versions"` // of the object, in the journal
	Newest      int64              `json:"newest_version"`
	Attempts    attempts           `json:"attempts"`
	Times       []stageTime        `json:"times"`       // of the stages that were done
	Snapshots   []store.Snapshot   `json:"snapshots"`   // active ones
	Adjustments []store.Adjustment `json:"adjustments"` // may be fewer than tree.changed
}

// attempts counts how the attempts at the stages ended, since the image is known. Those
// at further snapshots are not among them.
type attempts struct {
	Done   int `json:"done"`
	Failed int `json:"failed"`
	Undone int `json:"undone"` // stopped without a verdict
}

// stageTime is the newest attempt that was done at a stage.
type stageTime struct {
	Stage  store.Stage `json:"stage"`
	Ended  time.Time   `json:"ended_at"`
	TookMS int64       `json:"took_ms"`
}

func show(ctx context.Context, c *call) error {
	images, err := c.find(ctx, c.arg())
	if err != nil {
		return err
	}
	s, err := c.shownImage(ctx, images[len(images)-1])
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, s)
	}
	return c.printImage(s)
}

// shownImage collects what the journal has on an image.
func (c *call) shownImage(ctx context.Context, img store.Image) (*shownImage, error) {
	versions, err := c.store.ByKey(ctx, img.Key)
	if err != nil {
		return nil, err
	}
	versions = slices.DeleteFunc(versions, func(v store.Image) bool { return v.Bucket != img.Bucket })
	s := &shownImage{Image: img, Versions: len(versions), Newest: versions[len(versions)-1].ID}
	events, err := c.store.History(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	s.countAttempts(runsOf(events, time.Now()))
	if s.Snapshots, err = c.store.SnapshotsOf(ctx, img.ID); err != nil {
		return nil, err
	}
	if img.Tree != nil {
		if s.Adjustments, err = c.store.Adjustments(ctx, img.Tree.Device); err != nil {
			return nil, err
		}
	}
	s.Snapshots, s.Adjustments = nonNil(s.Snapshots), nonNil(s.Adjustments)
	s.WhatToDo = s.whatToDo()
	return s, nil
}

func (s *shownImage) countAttempts(runs []imageRun) {
	s.Times = []stageTime{}
	for _, r := range runs {
		for _, span := range r.Spans {
			switch {
			case span.Kind != spanAttempt || span.Ended == nil:
			case span.Outcome == string(store.EventDone):
				s.Attempts.Done++
				s.took(span)
			case span.Outcome == string(store.EventUndone):
				s.Attempts.Undone++
			default:
				s.Attempts.Failed++
			}
		}
	}
}

// took notes the time of a stage; the newest counts.
func (s *shownImage) took(span journalSpan) {
	s.Times = slices.DeleteFunc(s.Times, func(t stageTime) bool { return t.Stage == span.Stage })
	s.Times = append(s.Times, stageTime{span.Stage, *span.Ended, span.TookMS})
}

// whatToDo is the way on for whoever looks at the image.
func (s *shownImage) whatToDo() string {
	again := fmt.Sprintf("`consumer retry %d`", s.ID)
	switch s.State {
	case store.StateActive:
		return fmt.Sprintf("`consumer snapshot %d --mount DIR` makes a snapshot for you and mounts it", s.ID)
	case store.StateRejected:
		return fmt.Sprintf("mend the archive, try it with `consumer check FILE`, and upload it again; "+
			"%s has it judged again", again)
	case store.StateViolation:
		return "find out who uploaded it: no honest writer makes such an archive; it is kept in violations/ of the " +
			"state directory, under its SHA-256"
	case store.StateSuperseded:
		return "nothing: the object was overwritten, and the newer version is an image of its own"
	case store.StateVanished:
		return "nothing, or upload the object again"
	case store.StateDead:
		return fmt.Sprintf("remove the cause; then %s is a new chance", again)
	case store.StateRemoved:
		return again + " makes it again"
	case store.StatePending:
	}
	return "nothing: the daemon goes on by itself; `consumer status` shows whether it runs and takes work"
}
