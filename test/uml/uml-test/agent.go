package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Directories of the queue that all guests share. A test is a file in it; a guest takes a
// test by renaming the file, which only one can do, and answers with another.
const (
	waitingDir = "waiting"
	takenDir   = "taken"
	doneDir    = "done"
)

// result is what became of a test.
type result struct {
	test
	Code    int // of the process
	Skipped bool
	Took    time.Duration
	Output  string
}

func (r result) passed() bool { return r.Code == 0 && !r.Skipped }

// serve runs one test after the other until none is waiting, or one has not passed: what
// that left behind must not fail the next.
func serve(ctx context.Context, queue string) error {
	for ctx.Err() == nil {
		t, found, err := take(queue)
		if err != nil || !found {
			return err
		}
		r := runTest(ctx, t)
		if err := answer(queue, r); err != nil || r.Code != 0 {
			return err
		}
	}
	return ctx.Err()
}

// take takes the first test that is waiting.
func take(queue string) (t test, found bool, err error) {
	waiting := filepath.Join(queue, waitingDir)
	for {
		entries, err := os.ReadDir(waiting)
		if err != nil || len(entries) == 0 {
			return t, false, err
		}
		name := entries[0].Name()
		taken := filepath.Join(queue, takenDir, name)
		err = os.Rename(filepath.Join(waiting, name), taken)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another guest was faster
		}
		if err != nil {
			return t, false, err
		}
		text, err := os.ReadFile(taken)
		if err != nil {
			return t, false, err
		}
		return t, true, json.Unmarshal(text, &t)
	}
}

var skipped = regexp.MustCompile(`(?m)^\s*--- SKIP: `)

// runTest runs the test as go test would.
func runTest(ctx context.Context, t test) result {
	began := time.Now()
	cmd := exec.CommandContext(ctx, t.Binary, "-test.v", "-test.timeout=15m", "-test.run=^"+t.Name+"$")
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.Dir, &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	r := result{test: t, Took: time.Since(began), Output: out.String()}
	if err != nil {
		r.Code = 1
		r.Output += fmt.Sprintf("%s: %v\n", t.Name, err)
	}
	r.Skipped = skipped.MatchString(r.Output)
	return r
}

// answer writes the result where the host looks for it, whole or not at all.
func answer(queue string, r result) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	part := filepath.Join(queue, takenDir, r.id()+".part")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(queue, doneDir, r.id()))
}
