package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// The build can be told without a state directory and without settings.
func TestVersion(t *testing.T) {
	t.Setenv("STATE_DIR", "/nowhere")
	t.Setenv("MAX_DOWNLOADS", "many")
	code, text := perform(t, "version")
	for _, says := range []string{"consumer ", "commit ", "date ", runtime.Version(), runtime.GOOS} {
		if code != 0 || !strings.Contains(text, says) {
			t.Errorf("exit code %d, want 0 and %q: %s", code, says, text)
		}
	}
	if code, same := perform(t, "--version"); code != 0 || same != text {
		t.Errorf("--version: exit code %d: %s", code, same)
	}
	code, text = perform(t, "version --json")
	var fields map[string]string
	if err := json.Unmarshal([]byte(text), &fields); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, text)
	}
	for _, name := range []string{"version", "commit", "date", "go", "platform"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("there is no %s: %s", name, text)
		}
	}
}
