package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/store"
)

// stateColours are those of a state at a glance. The others have none.
var stateColours = map[store.State]string{
	store.StatePending: yellow, store.StateActive: green, store.StateRejected: red, store.StateViolation: red,
	store.StateDead: red,
}

// printImage prints an image for people.
func (c *call) printImage(s *shownImage) error {
	fmt.Fprintf(c.out, "%s image %d: %s\n", c.in(stateColours[s.State], "●"), s.ID, s.standing())
	c.printFacts(s.verdict())
	c.printFacts(s.content())
	c.printFacts(s.times())
	if len(s.Snapshots) > 0 {
		fmt.Fprintln(c.out)
		if err := c.printSnapshots(s.Snapshots); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "mount one: consumer snapshot %s%d --mount DIR\n", snapshotPrefix,
			s.Snapshots[len(s.Snapshots)-1].Device)
	}
	return s.writeAdjustments(c.out)
}

// standing says where the image is on its way.
func (s *shownImage) standing() string {
	switch {
	case s.Stage == "":
		return string(s.State)
	case s.Running:
		return fmt.Sprintf("%s, at work on the stage %s", s.State, s.Stage)
	}
	return fmt.Sprintf("%s, waiting for the stage %s", s.State, s.Stage)
}

// verdict is why the image is where it is, and what to do.
func (s *shownImage) verdict() []fact {
	failures := ""
	if s.Failures > 0 || s.Attempts.Failed > 0 {
		failures = fmt.Sprintf("%d since the last stage that was done, %d in all", s.Failures, s.Attempts.Failed)
	}
	interrupted := ""
	if s.Attempts.Undone > 0 {
		interrupted = count(s.Attempts.Undone, "attempt") + " ended without a verdict"
	}
	return []fact{
		{"Reason", oneLine(s.Reason)},
		{"Doubt", string(s.Doubt)},
		{"What to do", s.WhatToDo},
		{"Rules", s.Rules},
		{"Failures", failures},
		{"Interrupted", interrupted},
	}
}

// content is what the image is, from the object to the tree on its device.
func (s *shownImage) content() []fact {
	size := "size unknown"
	if s.Size > 0 {
		size = units.BytesSize(float64(s.Size))
	}
	facts := []fact{
		{"Key", quoted(s.Key)},
		{"Object", fmt.Sprintf("bucket %s, version %s, %s", s.Bucket, s.Version(), size)},
		{"Versions", s.versions()},
	}
	if b := s.Blob; b != nil {
		facts = append(facts,
			fact{"Archive", fmt.Sprintf("%s, SHA-256 %s", units.BytesSize(float64(b.Size)), b.SHA256)})
	}
	t := s.Tree
	if t == nil {
		return facts
	}
	facts = append(facts, fact{"Shape", t.Shape})
	for n, l := range t.Layers {
		facts = append(facts, fact{fmt.Sprintf("Layer %d", n+1), fmt.Sprintf("%s, %s", l.Digest,
			units.BytesSize(float64(l.Size)))})
	}
	return append(facts,
		fact{"Tree", fmt.Sprintf("%s, %s in %s; digest %s", countOf(t.Entries, "entry", "entries"),
			units.BytesSize(float64(t.Bytes)), count(t.Files, "file"), t.Digest)},
		fact{"Device", fmt.Sprint(t.Device)},
		fact{"Policy", t.Policy + s.changed()})
}

func (s *shownImage) versions() string {
	switch {
	case s.Versions < 2:
		return ""
	case s.Newest == s.ID:
		return fmt.Sprintf("%d of this key, of which this is the newest", s.Versions)
	}
	return fmt.Sprintf("%d of this key, of which image %d is the newest", s.Versions, s.Newest)
}

// changed says how many entries the policy changed, and how many of them are known.
func (s *shownImage) changed() string {
	n, known := s.Tree.Changed, len(s.Adjustments)
	switch {
	case n == 0:
		return ", which changed nothing"
	case known == n:
		return ", which changed " + countOf(n, "entry", "entries")
	case known == 0:
		return fmt.Sprintf(", which changed %s; which ones is not known", countOf(n, "entry", "entries"))
	}
	return fmt.Sprintf(", which changed %s; the first %d are below", countOf(n, "entry", "entries"), known)
}

// times is when things happened, and how long they took.
func (s *shownImage) times() []fact {
	var took []string
	for _, t := range s.Times {
		took = append(took, fmt.Sprintf("%s %s", t.Stage, tookText(t.TookMS)))
	}
	return []fact{
		{"Queued", since(s.CreatedAt)},
		{"Changed", since(s.UpdatedAt)},
		{"Took", strings.Join(took, ", ")},
		{"Trace", s.TraceID},
	}
}

// writeAdjustments writes every change that is known, by rule.
func (s *shownImage) writeAdjustments(out io.Writer) error {
	counts := map[archive.Reason]int{}
	for _, a := range s.Adjustments {
		counts[archive.Reason(a.Rule)]++
	}
	var b strings.Builder
	writeAdjustments(&b, s.Adjustments, counts, len(s.Adjustments))
	_, err := io.WriteString(out, b.String())
	return err
}
