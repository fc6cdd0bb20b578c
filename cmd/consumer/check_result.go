package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

var (
	// errRejected is returned for an archive that the daemon would reject.
	errRejected = errors.New("would be rejected")
	// errViolation is returned for an archive that the daemon would refuse as an attack.
	errViolation = errors.New("would be refused as an attack")
)

// verdicts are the results of the command, with their errors.
var verdicts = map[string]error{"accepted": nil, "rejected": errRejected, "violation": errViolation}

// checked is the result for an archive. docs/check.md describes its JSON.
type checked struct {
	Archive     string                 `json:"archive"`
	Verdict     string                 `json:"verdict"`
	Complete    bool                   `json:"complete"`
	Policy      archive.Policy         `json:"policy"`
	Size        int64                  `json:"size"`
	Shape       archive.Shape          `json:"shape"`
	Faults      []fault                `json:"faults"`
	FaultsBy    map[archive.Reason]int `json:"faults_by_rule"`
	Adjustments []store.Adjustment     `json:"adjustments"`
	AdjustedBy  map[archive.Reason]int `json:"adjustments_by_rule"`
	Image       *imageNeeds            `json:"image"`
}

// fault is one case of a broken rule.
type fault struct {
	Rule      archive.Reason `json:"rule"`
	Violation bool           `json:"violation"`
	Layer     int            `json:"layer,omitempty"`
	Entry     string         `json:"entry,omitempty"`
	Index     *int           `json:"index,omitempty"`
	Offset    *int64         `json:"offset,omitempty"`
	Detail    string         `json:"detail"`
	Remedy    string         `json:"remedy,omitempty"`
	Ended     bool           `json:"ended,omitempty"`
}

// imageNeeds is what an image has, and takes.
type imageNeeds struct {
	Platform    string `json:"platform"`
	Layers      int    `json:"layers"`
	Entries     int    `json:"entries"`
	Bytes       int64  `json:"bytes"`
	DeviceBytes int64  `json:"device_bytes"`
	PoolBytes   int64  `json:"pool_bytes"`
}

// ruleTooSmall is the pipeline's code for an image that does not fit its device.
const ruleTooSmall = "device_too_small"

func newChecked(path string, size int64, opts archive.Options, r *archive.Report, cfg provision.Config) *checked {
	c := &checked{
		Archive: path, Verdict: "accepted", Complete: !r.Incomplete, Policy: opts.Policy, Size: size, Shape: r.Shape,
		Faults: []fault{}, FaultsBy: r.RefusedBy, Adjustments: []store.Adjustment{}, AdjustedBy: r.AdjustedBy,
	}
	for _, rejection := range r.Rejections {
		c.Faults = append(c.Faults, newFault(rejection))
	}
	for _, a := range r.Adjustments {
		c.Adjustments = append(c.Adjustments,
			store.Adjustment{Rule: string(a.Reason), Entry: a.Entry, From: a.From, To: a.To})
	}
	if p := r.Plan; p != nil {
		c.Image = &imageNeeds{p.Platform(), len(p.Layers), p.Entries, p.Bytes, p.DeviceBytes(), p.PoolBytes()}
		if err := cfg.CheckFits(p); err != nil {
			c.Faults, c.FaultsBy[ruleTooSmall] = []fault{{Rule: ruleTooSmall, Detail: err.Error()}}, 1
		}
	}
	switch {
	case len(c.Faults) > 0 && c.Faults[0].Violation:
		c.Verdict = "violation"
	case len(c.Faults) > 0:
		c.Verdict = "rejected"
	}
	return c
}

func newFault(r *archive.Rejection) fault {
	f := fault{
		Rule: r.Reason, Violation: r.Violation, Layer: r.Layer, Entry: r.Entry,
		Detail: r.Detail, Remedy: r.Remedy, Ended: r.Ended,
	}
	if r.Located {
		f.Index, f.Offset = &r.Index, &r.Offset
	}
	return f
}

// err returns the error of the verdict, for the exit code.
func (c *checked) err() error {
	if err := verdicts[c.Verdict]; err != nil {
		return fmt.Errorf("%s %w", quoted(c.Archive), err)
	}
	return nil
}

func (c *checked) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(out, c)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s under the policy %s", quoted(c.Archive), c.Verdict, c.Policy)
	if n := len(c.FaultsBy); n > 0 {
		fmt.Fprintf(&b, "; rules broken: %d", n)
	}
	b.WriteByte('\n')
	c.writeFaults(&b)
	writeAdjustments(&b, c.Adjustments, c.AdjustedBy, mostShown)
	c.writeImage(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// writeFaults writes the faults by rule.
func (c *checked) writeFaults(b *strings.Builder) {
	for _, cases := range byRule(c.Faults, func(f fault) archive.Reason { return f.Rule }) {
		rule, attack, remedies := cases[0].Rule, "", []string{}
		if cases[0].Violation {
			attack = ", a violation"
		}
		fmt.Fprintf(b, "\n%s%s: %d\n", rule, attack, c.FaultsBy[rule])
		for _, f := range cases {
			fmt.Fprintf(b, "  %s\n", f)
			if f.Remedy != "" && !slices.Contains(remedies, f.Remedy) {
				remedies = append(remedies, f.Remedy)
			}
		}
		writeMore(b, c.FaultsBy[rule]-len(cases))
		for _, remedy := range remedies {
			fmt.Fprintf(b, "  remedy: %s\n", remedy)
		}
	}
	if !c.Complete {
		fmt.Fprint(b, "\nA part of the archive was not looked at. It may have more faults.\n")
	}
}

// String returns the place of a fault, and what is wrong.
func (f fault) String() string {
	var parts []string
	add := func(cond bool, format string, args ...any) {
		if cond {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(f.Layer > 0, "layer %d", f.Layer)
	if f.Index != nil {
		add(f.Entry != "", "entry %q (number %d, header at byte %d)", f.Entry, *f.Index+1, *f.Offset)
		add(f.Entry == "", "at byte %d", *f.Offset)
	}
	add(f.Detail != "", "%s", f.Detail)
	text := strings.Join(parts, ": ")
	if f.Ended {
		text += "; the judging ended here"
	}
	return text
}

// mostShown is how many cases of a rule the text has.
const mostShown = 20

// writeAdjustments writes changes by rule, at most so many of each. counts has how many
// there were.
func writeAdjustments(b *strings.Builder, all []store.Adjustment, counts map[archive.Reason]int, most int) {
	for _, cases := range byRule(all, func(a store.Adjustment) archive.Reason { return archive.Reason(a.Rule) }) {
		rule := archive.Reason(cases[0].Rule)
		fmt.Fprintf(b, "\n%s: %d adjusted\n", rule, counts[rule])
		shown := cases[:min(len(cases), most)]
		for _, a := range shown {
			fmt.Fprintf(b, "  entry %q: %s\n", a.Entry, changeOf(a))
		}
		writeMore(b, counts[rule]-len(shown))
	}
}

func changeOf(a store.Adjustment) string {
	if a.To == "" {
		return fmt.Sprintf("%q is left out", a.From)
	}
	return fmt.Sprintf("%q becomes %q", a.From, a.To)
}

func writeMore(b *strings.Builder, n int) {
	if n > 0 {
		fmt.Fprintf(b, "  and %d more\n", n)
	}
}

// writeImage writes what the archive was taken for, and what the image takes.
func (c *checked) writeImage(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteByte('\n')
	line("archive", "%s, shape %s", bytesSize(c.Size), cmp.Or(string(c.Shape), "unknown"))
	n := c.Image
	if n == nil {
		return
	}
	if n.Platform != "" {
		line("platform", "%s", n.Platform)
	}
	if n.Layers > 0 {
		line("layers", "%d", n.Layers)
	}
	line("entries", "%d, their files %s", n.Entries, bytesSize(n.Bytes))
	line("device", "%s or more", bytesSize(n.DeviceBytes))
	line("pool", "about %s", bytesSize(n.PoolBytes))
}

// byRule groups cases by their rule. Groups and cases stay in order.
func byRule[T any](all []T, rule func(T) archive.Reason) [][]T {
	groups, at := [][]T{}, map[archive.Reason]int{}
	for _, one := range all {
		r := rule(one)
		if _, ok := at[r]; !ok {
			at[r] = len(groups)
			groups = append(groups, nil)
		}
		groups[at[r]] = append(groups[at[r]], one)
	}
	return groups
}

func bytesSize(n int64) string { return units.BytesSize(float64(n)) }
