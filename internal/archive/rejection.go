package archive

import (
	"errors"
	"fmt"
	"strings"
)

// shown is how many bytes of a name from the archive appear in messages.
const shown = 256

// Rejection is why an archive is refused. It is an error.
type Rejection struct { //nolint:errname // the word of the domain: what is returned is a rejection
	Reason    Reason
	Violation bool   // as in the table of rules
	Entry     string // name of the entry, as far as it is known; at most 256 bytes
	Index     int    // of the entry, from 0
	Offset    int64  // of its header in the archive, in bytes
	Detail    string // what is wrong, for people; names from the archive are quoted in it
	Remedy    string // what can be done about it, if anything
	More      int    // further entries that would have been refused
}

// Error names the entry, the rule and the remedy. It is one line, whatever the archive
// contains.
func (r *Rejection) Error() string {
	var b strings.Builder
	if r.Entry != "" {
		fmt.Fprintf(&b, "entry %q (number %d, header at byte %d): ", r.Entry, r.Index+1, r.Offset)
	}
	b.WriteString(string(r.Reason))
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

// refuse makes a rejection by a rule without an entry.
func refuse(reason Reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Violation: byReason[reason].Violation, Detail: fmt.Sprintf(format, args...)}
}

// asRejection finds a rejection in an error, or nil.
func asRejection(err error) *Rejection {
	if err == nil {
		return nil
	}
	var r *Rejection
	errors.As(err, &r)
	return r
}

// remedies say what another policy would do.
var remedies = map[Verdict]string{
	Rewrite: "it would be rewritten to the equivalent relative link",
	Strip:   "it would be stripped",
	Skip:    "it would be left out",
	Clamp:   "it would be set to the nearest possible",
}

// remedy is the advice for an entry that only a strict policy refuses.
func remedy(rule Rule, p Policy) string {
	if p != Strict || rule.Distro == Reject {
		return ""
	}
	return "set IMAGE_POLICY=distro, and " + remedies[rule.Distro]
}

// Adjustment is a change that the policy made to an entry.
type Adjustment struct {
	Entry    string // at most 256 bytes
	Reason   Reason
	From, To string // what it was and became; To is empty for what was left out
}

// shorten bounds a text from the archive.
func shorten(s string) string {
	if len(s) <= shown {
		return s
	}
	return s[:shown-3] + "..."
}
