// Package setup holds the script that installs packages, and its tests.
package setup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Packages that are missing are installed, and nothing is done where none is. Another
// program's lock on apt is waited for, for a while; any other failure is shown at once.
func TestSetup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root installs packages")
	}
	const locked = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7"
	for name, c := range map[string]struct {
		packages, lock, other string // lock: how often apt-get finds it taken
		code                  int
		calls, says           string
	}{
		"nothing is missing": {packages: "here also"},
		"one is missing": {
			packages: "here gone", calls: "update;install -y --no-install-recommends gone;",
			says: "installing: gone",
		},
		"locked for a moment": {
			packages: "gone", lock: "1",
			calls: "update;update;install -y --no-install-recommends gone;", says: "waiting for another",
		},
		"locked for good": {packages: "gone", lock: "9", code: 1, calls: "update;update;update;", says: locked},
		"another failure": {
			packages: "gone", other: "E: no network", code: 1, calls: "update;",
			says: "E: no network",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			fake(t, bin, "dpkg-query", `case $4 in gone) exit 1;; *) echo 'install ok installed';; esac`)
			fake(t, bin, "apt-get", `shift; printf '%s;' "$*" >> `+bin+`/calls
[ -z "$OTHER" ] || { echo "$OTHER" >&2; exit 100; }
n=$(cat `+bin+`/lock 2>/dev/null || echo "${LOCK:-0}")
[ "$n" = 0 ] || { echo $((n - 1)) > `+bin+`/lock; echo '`+locked+`' >&2; exit 100; }`)
			cmd := exec.Command("./setup.sh", strings.Fields(c.packages)...)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SETUP_PATIENCE=2", "LOCK="+c.lock,
				"OTHER="+c.other)
			out, _ := cmd.CombinedOutput() // its exit code is looked at
			calls, _ := os.ReadFile(filepath.Join(bin, "calls"))
			if code := cmd.ProcessState.ExitCode(); code != c.code || string(calls) != c.calls ||
				!strings.Contains(string(out), c.says) {
				t.Errorf("exit code %d, calls %q, output %q; want %d, %q, %q",
					code, calls, out, c.code, c.calls, c.says)
			}
		})
	}
}

func fake(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}
