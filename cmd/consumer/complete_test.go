package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// complete returns what a shell is offered for the last word of a line.
func complete(t *testing.T, words ...string) string {
	t.Helper()
	code, text := performWords(t, append([]string{"__complete"}, words...)...)
	offered, found := strings.CutSuffix(text, ":4\n") // no files
	if code != 0 || !found {
		t.Errorf("%q: exit code %d: %s", words, code, text)
	}
	return offered
}

// The shell is offered what is in the database.
func TestCompletion(t *testing.T) {
	j := begun(t)
	j.active("images/a.tar", "1")
	j.pending("images/b.tar", "2")
	j.pending("images/a.tar", "3")
	j.pending("other/\x1b[31m.tar", "4")
	j.quarantined("m", "{}", "no\nJSON")
	for _, c := range []struct {
		line, want string
	}{
		{"history|", "images/a.tar\nimages/b.tar\n"},
		{"history|images/b", "images/b.tar\n"},
		{"verify|2", "2\timages/b.tar\n"},
		{"verify|4", "4\t\"other/\\x1b[31m.tar\"\n"},
		{"verify|1|", ""},
		{"snapshot|nothing", ""},
		{"submit|images/a", "images/a.tar\n"},
		{"rm|images/a", "images/a.tar\n"},
		{"rm|snapshot:", "snapshot:2\tof image 1, images/a.tar\n"},
		{"rm|/dev/", "/dev/mapper/cim-images-snap-2\tof image 1, images/a.tar\n"},
		{"quarantine|show|", "1\tno\\nJSON\n"},
		{"quarantine|drop|2", ""},
		{"run|--policy|", "strict\ndistro\ntrusted\n"},
		{"images|--log-level|w", "debug\ninfo\nwarn\nerror\n"},
		{"pool|gr", "grow\tMake the pool larger, while it is in use\n"},
		{"status|x", ""},
	} {
		if have := complete(t, strings.Split(c.line, "|")...); have != c.want {
			t.Errorf("%s: %q, want %q", c.line, have, c.want)
		}
	}
}

// A shell that asks changes nothing, and without a good database it gets nothing, not
// even a complaint.
func TestCompletionIsQuiet(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIR", dir)
	t.Setenv("MAX_DOWNLOADS", "many")
	for _, text := range []string{"", "no database at all"} {
		if text != "" {
			if err := os.WriteFile(databasePath(dir), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if have := complete(t, "history", ""); have != "" {
			t.Errorf("%q: %s", text, have)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if have := complete(t, "history", "--state-dir", filepath.Dir(stateWith(t, "k.tar")), ""); have != "k.tar\n" {
		t.Errorf("--state-dir does not count: %q", have)
	}
}

// There is a script for each shell; those whose shell is here are read by it.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, script := perform(t, "completion "+shell)
		if code != 0 || !strings.Contains(script, "__complete") {
			t.Errorf("%s: exit code %d: %s", shell, code, script)
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue
		}
		check := exec.CommandContext(t.Context(), path, "-n")
		check.Stdin = bytes.NewBufferString(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}
