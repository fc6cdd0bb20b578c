package pipeline

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file instead of comparing")

// A reviewer sees what a failure is called: in the log and the metrics by its class, in
// the journal by its text. What may befall every image has a remedy.
func TestGoldenFailures(t *testing.T) {
	const path = "testdata/failures.txt"
	var text strings.Builder
	for _, c := range classes {
		fmt.Fprintf(&text, "%s, %s: %v\n", c.verdict, c.class, c.target)
		if c.verdict == outage {
			fmt.Fprintf(&text, "  %s\n", remedy(c.target))
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil || string(golden) != text.String() {
		t.Errorf("%s differs (`make docs` writes it again), %v:\n%s", path, err, &text)
	}
}
