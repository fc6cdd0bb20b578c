package ext4

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mke2fs is asked for its version once, and again when it was replaced.
func TestVersionIsAskedForOnce(t *testing.T) {
	dir := t.TempDir()
	program, log := filepath.Join(dir, "mke2fs"), filepath.Join(dir, "log")
	install := func(version string) {
		t.Helper()
		script := fmt.Sprintf("#!/bin/sh\necho $* >>%s\necho 'mke2fs %s (5-Feb-2023)'\n", log, version)
		check(t, os.WriteFile(program+".new", []byte(script), 0o700)) //nolint:gosec // a program
		check(t, os.Rename(program+".new", program))
	}
	var v versions
	for _, c := range []struct {
		version string
		want    [3]int
	}{{"1.46.2", [3]int{1, 46, 2}}, {"1.47.0-rc1", [3]int{1, 47, 0}}} {
		install(c.version)
		for range 2 {
			if got, err := v.of(t.Context(), program); err != nil || got != c.want {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		}
	}
	asked, err := os.ReadFile(log)
	check(t, err)
	if n := strings.Count(string(asked), "-V"); n != 2 {
		t.Errorf("asked %d times, want once for each of two programs", n)
	}
	check(t, os.Remove(program))
	if _, err := v.of(t.Context(), program); err == nil {
		t.Error("a program that is gone has a version")
	}
}
