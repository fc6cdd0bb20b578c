package archive

import (
	"errors"
	"fmt"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// Rejection is the error for a refused archive. It says why.
type Rejection struct { //nolint:errname // the word of the domain: what is returned is a rejection
	Reason    Reason
	Violation bool   // as in the table of rules
	Entry     string // name of the entry, if it is known; at most 256 bytes
	Index     int    // of the entry in its tarball, from 0
	Offset    int64  // of its header in the archive, in bytes
	Layer     int    // of the image, from 1, lowest first; 0 outside of layers
	Detail    string // the fault in words; names from the archive are quoted in it
	Remedy    string // what the sender or the operator can do, or empty
	Located   bool   // Index and Offset are set, even if Entry is not
	Ended     bool   // what comes after it, in its layer or in the archive, was not looked at

	// Of the rejection that counts:
	Others map[Reason]int // number of further faults, by rule
	Shape  Shape          // what the archive was taken for; empty if its reading ended before

	unterminated bool // nothing is missing but the end marker
}

// Error names the entry, the rule and the remedy. It is always one line.
func (r *Rejection) Error() string {
	var b strings.Builder
	if r.Entry != "" {
		fmt.Fprintf(&b, "entry %q (number %d, header at byte %d): ", r.Entry, r.Index+1, r.Offset)
	}
	b.WriteString(string(r.Reason))
	if r.Entry == "" && r.Located {
		fmt.Fprintf(&b, " at byte %d", r.Offset)
	}
	if r.Layer > 0 {
		fmt.Fprintf(&b, ": layer %d", r.Layer)
	}
	if r.Detail != "" {
		fmt.Fprintf(&b, ": %s", r.Detail)
	}
	if r.Remedy != "" {
		fmt.Fprintf(&b, "; %s", r.Remedy)
	}
	if r.Shape != "" {
		fmt.Fprintf(&b, "; the archive was taken for %s", titles[r.Shape])
	}
	if n := r.More(); n > 0 {
		fmt.Fprintf(&b, " (and %d more: %s)", n, listOthers(r.Others))
	}
	return b.String()
}

// More returns the number of further faults.
func (r *Rejection) More() int {
	n := 0
	for _, of := range r.Others {
		n += of
	}
	return n
}

// refuse returns a rejection by a rule. The entry is added with locate.
func refuse(reason Reason, format string, args ...any) *Rejection {
	return &Rejection{
		Reason: reason, Violation: byReason[reason].Violation, Detail: fmt.Sprintf(format, args...),
		Remedy: advice[reason],
	}
}

// locate sets the entry of a rejection. offset is where its header begins in the archive.
func (r *Rejection) locate(entry string, index int, offset int64) {
	r.Entry, r.Index, r.Offset, r.Located = fstree.TruncateName(entry), index, offset, true
}

// inLayer sets the layer, counted from 1, lowest first.
func (r *Rejection) inLayer(layer int) { r.Layer = layer }

// asRejection returns the rejection in an error, or nil.
func asRejection(err error) *Rejection {
	if err == nil {
		return nil
	}
	var r *Rejection
	errors.As(err, &r)
	return r
}

// remedies say what another policy would do with an entry.
var remedies = map[Disposition]string{
	Rewrite: "it would be rewritten to the equivalent one in the root",
	Strip:   "it would be stripped",
	Skip:    "it would be left out",
	Replace: "the last one would count",
	Clamp:   "it would be set to the nearest possible",
	Close:   "it would be read as if it had one",
}

// remedy returns the advice for an entry that a policy refuses.
func remedy(rule Rule, p Policy) string {
	if p != Strict || rule.Distro == Reject {
		return advice[rule.Reason]
	}
	return "set IMAGE_POLICY=distro, and " + remedies[rule.Distro]
}

// Adjustment is a change to an entry, made by the policy.
type Adjustment struct {
	Entry    string // at most 256 bytes
	Reason   Reason
	From, To string // before and after; To is empty for an entry or attribute left out
}
