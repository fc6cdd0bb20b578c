package writers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
)

// verdict is how a policy judges an archive.
type verdict struct {
	refused  archive.Reason         // empty if it is accepted
	adjusted map[archive.Reason]int // number of changes, by rule
}

// verdicts are those of all policies.
type verdicts map[archive.Policy]verdict

// check fails unless strict is the strictest: what it takes, the others take as it is. If
// it refuses what distro takes, distro changes something by that rule.
func (v verdicts) check(t *testing.T) {
	t.Helper()
	strict := v[archive.Strict].refused
	for policy, other := range v {
		switch {
		case strict == "" && (other.refused != "" || len(other.adjusted) > 0):
			t.Errorf("strict takes it, %s: %s", policy, other)
		case strict != "" && policy == archive.Distro && other.refused == "" && other.adjusted[strict] == 0:
			t.Errorf("strict refuses it for %s, %s: %s", strict, policy, other)
		}
	}
}

// String is a cell of the table.
func (v verdict) String() string {
	switch {
	case v.refused != "":
		return fmt.Sprintf("refused: `%s`", v.refused)
	case len(v.adjusted) == 0:
		return "accepted"
	}
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(v.adjusted)) {
		list = append(list, fmt.Sprintf("%d `%s`", v.adjusted[reason], reason))
	}
	return "accepted: " + strings.Join(list, ", ")
}

// names is String without numbers, which change with each release of Debian.
func (v verdict) names() string {
	text := v.String()
	for _, n := range v.adjusted {
		text = strings.Replace(text, fmt.Sprintf(" %d `", n), " `", 1)
	}
	return text
}
