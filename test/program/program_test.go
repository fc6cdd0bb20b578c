package program

import (
	"path/filepath"
	"testing"
)

// outcome notes how a test would end.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Skipf(string, ...any)  { o.skipped = true }
func (o *outcome) Fatalf(string, ...any) { o.failed = true }

// A missing program skips the test, unless it has to be there.
func TestRequire(t *testing.T) {
	if path := Require(t, "sh", "dash"); filepath.Base(path) != "sh" {
		t.Errorf("found %s", path)
	}
	for setting, mustFail := range map[string]bool{"": false, "1": true} {
		t.Setenv("CIM_REQUIRE_TOOLS", setting)
		o := &outcome{TB: t}
		Require(o, "no-such-program", "nothing")
		if o.failed != mustFail || o.skipped == mustFail {
			t.Errorf("CIM_REQUIRE_TOOLS=%q: %+v", setting, o)
		}
	}
}
