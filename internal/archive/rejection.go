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
	Index     int    // of the entry, from 0
	Offset    int64  // of its header in the archive, in bytes
	Detail    string // the fault in words; names from the archive are quoted in it
	Remedy    string // what the sender or the operator can do, or empty
	More      int    // number of further faults
	located   bool   // Index and Offset are set, even if Entry is not

	unterminated bool // nothing is missing but the end marker
}

// Error names the entry, the rule and the remedy. It is always one line.
func (r *Rejection) Error() string {
	var b strings.Builder
	if r.Entry != "" {
		fmt.Fprintf(&b, "entry %q (number %d, header at byte %d): ", r.Entry, r.Index+1, r.Offset)
	}
	b.WriteString(string(r.Reason))
	if r.Entry == "" && r.located {
		fmt.Fprintf(&b, " at byte %d", r.Offset)
	}
	if r.Detail != "" {
		fmt.Fprintf(&b, ": %s", r.Detail)
	}
	if r.Remedy != "" {
		fmt.Fprintf(&b, "; %s", r.Remedy)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, " (and %d more)", r.More)
	}
	return b.String()
}

// refuse returns a rejection by a rule. The entry is added with locate.
func refuse(reason Reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Violation: byReason[reason].Violation, Detail: fmt.Sprintf(format, args...)}
}

// locate sets the entry of a rejection. offset is where its header begins in the archive.
func (r *Rejection) locate(entry string, index int, offset int64) {
	r.Entry, r.Index, r.Offset, r.located = fstree.TruncateName(entry), index, offset, true
}

// inLayer adds the layer, counted from 1, lowest first.
func (r *Rejection) inLayer(layer int) { r.Detail = fmt.Sprintf("layer %d: %s", layer, r.Detail) }

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

// remedy returns the advice for an entry refused by the strict policy only.
func remedy(rule Rule, p Policy) string {
	if p != Strict || rule.Distro == Reject {
		return ""
	}
	return "set IMAGE_POLICY=distro, and " + remedies[rule.Distro]
}

// Adjustment is a change to an entry, made by the policy.
type Adjustment struct {
	Entry    string // at most 256 bytes
	Reason   Reason
	From, To string // before and after; To is empty for an entry or attribute left out
}
