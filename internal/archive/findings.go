package archive

import "imagemanager.internal/internal/archive/fstree"

// maxAdjustments is how many adjustments are described; real images have a few hundred.
// Further ones are made and counted.
const maxAdjustments = 2_000

// findings collects the faults of an archive, and the changes that the policy makes. Of
// several faults the first violation counts, or without one the first rejection:
// otherwise an attack could hide behind an absolute link.
type findings struct {
	policy      Policy
	worst       *Rejection
	refused     int
	adjusted    int
	adjustedBy  map[Reason]int
	adjustments []Adjustment
}

func newFindings(p Policy) *findings { return &findings{policy: p, adjustedBy: map[Reason]int{}} }

// outweighs reports whether a new rejection would be the one that counts.
func (f *findings) outweighs(violation bool) bool {
	return f.worst == nil || violation && !f.worst.Violation
}

func (f *findings) reject(r *Rejection) {
	f.refused++
	if f.outweighs(r.Violation) {
		f.worst = r
	}
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

// outcome returns the rejection that counts, err considered. Without one it returns err.
func (f *findings) outcome(err error) error {
	r := asRejection(err)
	if err != nil && r == nil {
		return err
	}
	if r != nil && r != f.worst {
		f.reject(r)
	}
	if f.worst == nil {
		return nil
	}
	f.worst.More = f.refused - 1
	return f.worst
}
