package archive

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Report is all that Judge found in an archive.
type Report struct {
	Plan  *Plan // nil if the archive is refused
	Shape Shape // what the archive was taken for; empty if its reading ended before
	// Rejections are those found, violations first, otherwise as they were met. Of each
	// rule there are at most the first 20.
	Rejections  []*Rejection
	RefusedBy   map[Reason]int // number of all rejections, by rule
	Incomplete  bool           // a part of the archive was not looked at; it may have more faults
	Adjusted    int            // number of changes that the policy made
	AdjustedBy  map[Reason]int // the same, by rule
	Adjustments []Adjustment   // the first 2,000 of them, in the archive's order
}

// Rejection returns the rejection that counts, or nil for an accepted archive. It knows
// the number of the others and the archive's shape.
func (r *Report) Rejection() *Rejection {
	if len(r.Rejections) == 0 {
		return nil
	}
	worst := *r.Rejections[0]
	worst.Shape, worst.Others = r.Shape, maps.Clone(r.RefusedBy)
	if worst.Others[worst.Reason]--; worst.Others[worst.Reason] == 0 {
		delete(worst.Others, worst.Reason)
	}
	return &worst
}

// report returns the findings. plan is nil for a refused archive.
func (c *checker) report(plan *Plan) *Report {
	f := c.findings
	slices.SortStableFunc(f.rejections, func(a, b *Rejection) int { return violationsFirst(a.Violation, b.Violation) })
	return &Report{
		Plan: plan, Shape: c.shape, Rejections: f.rejections, RefusedBy: f.refusedBy, Incomplete: f.incomplete,
		Adjusted: f.adjusted, AdjustedBy: f.adjustedBy, Adjustments: f.adjustments,
	}
}

func violationsFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// maxOthers is how many rules a message lists beside its own.
const maxOthers = 5

// listOthers lists rules and how often each was broken: violations first, then the most
// frequent.
func listOthers(count map[Reason]int) string {
	rules := slices.SortedFunc(maps.Keys(count), func(a, b Reason) int {
		return cmp.Or(violationsFirst(byReason[a].Violation, byReason[b].Violation), cmp.Compare(count[b], count[a]),
			cmp.Compare(a, b))
	})
	var parts []string
	for _, r := range rules[:min(len(rules), maxOthers)] {
		parts = append(parts, fmt.Sprintf("%d %s", count[r], r))
	}
	if len(rules) > maxOthers {
		parts = append(parts, fmt.Sprintf("%d other rules", len(rules)-maxOthers))
	}
	return strings.Join(parts, ", ")
}

// Platform returns what an image says that it runs on, such as "linux/arm64/v8". A root
// file system without a configuration says nothing: "".
func (p *Plan) Platform() string {
	var config struct{ OS, Architecture, Variant string }
	if json.Unmarshal(p.Config, &config) != nil { // no configuration; one that is there has been parsed before
		return ""
	}
	return strings.Trim(config.OS+"/"+config.Architecture+"/"+config.Variant, "/")
}
