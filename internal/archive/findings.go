package archive

import "imagemanager.internal/internal/archive/fstree"

const (
	// maxAdjustments is how many adjustments are described; real images have a few
	// hundred. Further ones are made and counted.
	maxAdjustments = 2_000
	// maxRejections is how many rejections by one rule are described. Further ones are
	// counted. The bound is for each rule, so no rule hides behind another.
	maxRejections = 20
)

// findings collects the faults of an archive, and the changes that the policy makes. Of
// several faults the first violation counts, or without one the first rejection:
// otherwise an attack could hide behind an absolute link.
type findings struct {
	policy      Policy
	worst       *Rejection
	rejections  []*Rejection
	refusedBy   map[Reason]int
	incomplete  bool // the reading or the judging ended before the end
	adjusted    int
	adjustedBy  map[Reason]int
	adjustments []Adjustment
}

func newFindings(p Policy) *findings {
	return &findings{policy: p, refusedBy: map[Reason]int{}, adjustedBy: map[Reason]int{}}
}

// describes reports whether one more rejection by the rule would be described.
func (f *findings) describes(reason Reason) bool { return f.refusedBy[reason] < maxRejections }

func (f *findings) reject(r *Rejection) {
	if f.worst == nil || r.Violation && !f.worst.Violation {
		f.worst = r
	}
	if f.describes(r.Reason) {
		f.rejections = append(f.rejections, r)
	}
	f.refusedBy[r.Reason]++
}

// endAt notes that nothing was looked at behind the rejection in an error. It returns the
// error.
func (f *findings) endAt(err error) error {
	if r := asRejection(err); r != nil {
		r.Ended, f.incomplete = true, true
	}
	return err
}

// adjust records a change. It calls entry only if the change is described.
func (f *findings) adjust(reason Reason, entry func() string, from, to string) {
	f.adjustedBy[reason]++
	if f.adjusted++; f.adjusted <= maxAdjustments {
		f.adjustments = append(f.adjustments, Adjustment{
			Entry: fstree.TruncateName(entry()), Reason: reason, From: from, To: to,
		})
	}
}

// settle records the rejection that ended the judging. Other errors it returns.
func (f *findings) settle(err error) error {
	r := asRejection(err)
	if r == nil {
		return err
	}
	if r != f.worst {
		_ = f.endAt(r)
		f.reject(r)
	}
	return nil
}
