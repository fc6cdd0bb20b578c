package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/test/cloud"
)

// unsteady finds what differs in every run, or on every machine, besides what the
// listings have: addresses, processes, what Go and the build are, the size of a database.
var unsteady = regexp.MustCompile(
	`127\.0\.0\.1:\d{4,5}|process \d+ \(.*\)|go1\.[0-9.]+|linux/[a-z0-9]+|request id "[^"]+"|\d+KiB, up to`)

// scriptFile has the invocations with what they print, standard error after standard
// output, and with their exit code. Lines that begin with # say what follows.
const scriptFile = "testdata/invocations.txt"

// The program answers every line as the script has it: good ones, slips, missing
// settings, another user, a read-only directory, a locked one, a damaged database.
func TestGoldenInvocations(t *testing.T) {
	script, err := os.ReadFile(scriptFile)
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	var text strings.Builder
	lines := 0
	for line := range strings.Lines(string(script)) {
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case isCommand:
			text.WriteString(line + s.run(strings.TrimSpace(command)) + "\n")
			lines++
		case strings.HasPrefix(line, "#"):
			text.WriteString(line)
		}
	}
	same(t, scriptFile, text.String())
	if lines < 60 {
		t.Errorf("only %d invocations", lines)
	}
}

// shell runs command lines in a small world of its own.
type shell struct {
	t     *testing.T
	env   []string
	names *strings.Replacer // of what is elsewhere in every run
}

// newShell builds the program, and makes the places that the script names.
func newShell(t *testing.T) *shell {
	t.Helper()
	root, err := os.MkdirTemp("", "invocations") // in reach of other users, as t.TempDir is not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	bin := filepath.Join(root, "bin")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin+"/consumer", ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, text := range map[string]string{"nobody": nobody, "complete_in_bash": completeInBash} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cloud.Emulate(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	bucket, err := c.Bucket(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"images/new.tar", "images/setuid.tar", "images/a b.tar"} {
		if err := bucket.Put(t.Context(), key, []byte("no archive")); err != nil {
			t.Fatal(err)
		}
	}
	s := &shell{t: t, env: []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + root, "TZ=UTC", "LC_ALL=C.UTF-8",
		"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_MAX_ATTEMPTS=1",
		"LISTEN_ADDR=127.0.0.1:1", // nobody answers there
		"ROOT=" + root, "AWS=" + c.URL, "QUEUE=" + bucket.Queue,
	}}
	s.places(root)
	return s
}

// places makes the state directories. STATE_DIR is the good one.
func (s *shell) places(root string) {
	s.t.Helper()
	replace := []string{}
	for _, name := range []string{"STATE", "EMPTY", "DAMAGED", "READONLY", "FOREIGN", "LOCKED"} {
		dir := filepath.Join(root, strings.ToLower(name))
		s.check(os.Mkdir(dir, 0o755)) // others may look
		if name != "EMPTY" {
			j := begunIn(s.t, dir)
			j.fill()
			s.check(j.Close())
		}
		s.env = append(s.env, name+"="+dir)
		replace = append(replace, dir, "$"+name)
	}
	s.names = strings.NewReplacer(append(replace, root, "$ROOT")...)
	s.env = append(s.env, "STATE_DIR="+filepath.Join(root, "state"))
	s.check(os.WriteFile(databasePath(root+"/damaged"), []byte("this is no database"), 0o600))
	s.check(os.Chmod(root, 0o755))
	s.check(os.Chmod(databasePath(root+"/readonly"), 0o444))
	s.check(os.Chmod(databasePath(root+"/locked"), 0o644))
	s.check(os.Chmod(root+"/readonly", 0o555))
	s.check(os.Chmod(root+"/foreign", 0))
	lock, err := os.Create(filepath.Join(root, "locked", daemonLock))
	s.check(err)
	s.check(lock.Chmod(0o600)) // as a daemon makes it
	s.t.Cleanup(func() { lock.Close() })
	s.check(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
}

func (s *shell) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// nobody is a user without any rights. Whoever is not root is one already.
const nobody = `#!/bin/sh
test "$(id -u)" != 0 || set -- setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
exec "$@"
`

// completeInBash presses the tabulator behind a line, as the package bash-completion
// does.
const completeInBash = `#!/bin/bash
_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}; }
compopt() { :; }
source <(consumer completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
__start_consumer
printf '%s\n' "${COMPREPLY[@]}"
`

// run returns what a command line prints, and its exit code.
func (s *shell) run(line string) string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env = s.env
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	text := unsteady.ReplaceAllString(s.names.Replace(out.String()+errs.String()), "…")
	return fmt.Sprintf("%s[%d]\n", steady(text), cmd.ProcessState.ExitCode())
}
