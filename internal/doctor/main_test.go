package doctor

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// find returns the finding of a check.
func find(t *testing.T, found []Finding, check string) Finding {
	t.Helper()
	for _, f := range found {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no finding about %s in %+v", check, found)
	return Finding{}
}

// expect compares the finding of a check: its result, and words of text and remedy.
func expect(t *testing.T, found []Finding, check string, result Level, text, remedy string) {
	t.Helper()
	f := find(t, found, check)
	if f.Result != result || !strings.Contains(f.Text, text) || !strings.Contains(f.Remedy, remedy) {
		t.Errorf("%s: %+v\nwant %s, %q, and the remedy %q", check, f, result, text, remedy)
	}
}

// allHaveRemedies checks that whatever is not ok says what to do.
func allHaveRemedies(t *testing.T, found []Finding) {
	t.Helper()
	for _, f := range found {
		if (f.Result == OK) != (f.Remedy == "") {
			t.Errorf("%+v: a remedy belongs to a warning or a failure, and to nothing else", f)
		}
	}
}
