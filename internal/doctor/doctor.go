// Package doctor looks for what would keep the daemon from its work: on this machine
// (Machine) and in AWS (Cloud). It changes nothing. Each check is a function that returns
// a Finding; whatever it could not see is a warning.
package doctor

import (
	"fmt"
	"strings"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // may do harm later, or could not be seen
	Fail Level = "fail" // the daemon does not work like this
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`            // the check's name, which never changes
	Result Level  `json:"result"`           // see Level
	Text   string `json:"text"`             // what was found
	Remedy string `json:"remedy,omitempty"` // what to do about it, unless it is ok
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Result: OK, Text: oneLine(fmt.Sprintf(format, args...))}
}

func warn(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Result: Warn, Text: oneLine(fmt.Sprintf(format, args...)), Remedy: remedy}
}

func fail(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Result: Fail, Text: oneLine(fmt.Sprintf(format, args...)), Remedy: remedy}
}

// oneLine keeps a text on its line: names come from AWS and from other programs.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// skipped returns a warning for each check that has to wait for another one.
func skipped(why string, checks ...string) []Finding {
	var found []Finding
	for _, check := range checks {
		found = append(found, warn(check, "mend that first", "not looked at: %s", why))
	}
	return found
}
