package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// recorder stands in for the program in a shell. It writes its arguments down, and prints
// what is used as a name.
const recorder = `#!/bin/sh
for arg; do printf '%s\037' "$arg"; done >>"$CALLS"
echo >>"$CALLS"
echo images/debian.tar
`

// passOn stands in for xargs.
const passOn = `#!/bin/sh
exec "$@" images/debian.tar
`

// The examples of every command are command lines that it takes. A shell reads them; it
// finds no other programs, so nothing happens.
func TestExamples(t *testing.T) {
	bin := t.TempDir()
	for name, text := range map[string]string{"consumer": recorder, "xargs": passOn} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	examples := 0
	for _, c := range manual() {
		for line := range strings.Lines(strings.ReplaceAll(c.Example, "\\\n", "")) {
			examples++
			calls := callsOf(t, bin, line)
			taken := slices.ContainsFunc(calls, func(args []string) bool { return takenBy(t, args) == c.CommandPath() })
			if !taken {
				t.Errorf("%s: this example does not call it: %s", c.CommandPath(), line)
			}
		}
	}
	if examples < 30 {
		t.Errorf("only %d examples", examples)
	}
}

// callsOf returns the arguments of each call of the program in a command line.
func callsOf(t *testing.T, bin, line string) [][]string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
	cmd.Env = []string{"PATH=" + bin, "CALLS=" + log}
	_ = cmd.Run() // fails if another program is in the line
	text, err := os.ReadFile(log)
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
	var calls [][]string
	for call := range strings.Lines(string(text)) {
		args := strings.Split(strings.TrimSuffix(call, "\n"), "\x1f")
		calls = append(calls, args[:len(args)-1])
	}
	return calls
}

// takenBy returns the path of the command that takes the arguments, with its flags.
func takenBy(t *testing.T, args []string) string {
	t.Helper()
	cmd, rest, err := newProgram(io.Discard).Find(args)
	for _, check := range []func() error{
		func() error { return err },
		func() error { return cmd.ParseFlags(rest) },
		func() error { return cmd.ValidateArgs(cmd.Flags().Args()) },
		func() error { return checkGroups(cmd) },
	} {
		if err := check(); err != nil {
			t.Errorf("consumer %s: %v", strings.Join(args, " "), err)
			return ""
		}
	}
	return cmd.CommandPath()
}

// checkGroups reports flags that do not go together, or are missing.
func checkGroups(cmd *cobra.Command) error {
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateFlagGroups()
}
