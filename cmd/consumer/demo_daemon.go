package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-units"
)

// daemon is the `consumer run` that the demo watches.
type daemon struct {
	cmd     *exec.Cmd
	out     io.Writer
	gone    chan struct{} // closed when its log has ended
	ready   chan struct{} // closed when it runs
	handoff chan time.Time
	once    sync.Once
	err     error
}

// logLine is what the demo reads of a line of the daemon's log.
type logLine struct {
	Level   string  `json:"level"`
	Key     string  `json:"s3_key"`
	Event   string  `json:"event"`
	Step    string  `json:"step"`
	Message string  `json:"message"`
	Error   string  `json:"error"`
	Reason  string  `json:"reason"`
	Entry   string  `json:"entry"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Done    float64 `json:"done_bytes"`
	Total   float64 `json:"total_bytes"`
	Took    float64 `json:"took_ms"`
}

func startDaemon(program string, env []string, out io.Writer, args ...string) (*daemon, error) {
	cmd := exec.Command(program, append([]string{"run"}, args...)...) //nolint:noctx // stopped by SIGTERM, in its turn
	cmd.Env = env
	// one uploaded twice
	d := &daemon{
		cmd: cmd, out: out, gone: make(chan struct{}), ready: make(chan struct{}),
		handoff: make(chan time.Time, 1),
	}
	log, err := startChild(cmd, cmd.StderrPipe)
	if err != nil {
		return nil, err
	}
	go d.follow(log)
	return d, nil
}

// follow prints the daemon's log as it comes, in words.
func (d *daemon) follow(log io.Reader) {
	defer close(d.gone)
	began := time.Now()
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var l logLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			fmt.Fprintf(d.out, "  %s\n", lines.Text())
			continue
		}
		if text := l.words(); text != "" {
			fmt.Fprintf(d.out, "%7.2fs  %s\n", time.Since(began).Seconds(), text)
		}
		switch l.Message {
		case "running":
			close(d.ready)
		case "handed off: nothing to do":
			select {
			case d.handoff <- time.Now():
			default:
			}
		}
	}
}

func (l logLine) words() string {
	switch {
	case l.Message == "progress":
		return fmt.Sprintf("%-9s %3.0f %%  %s of %s",
			l.Step, 100*l.Done/max(l.Total, 1), units.BytesSize(l.Done), units.BytesSize(l.Total))
	case l.Entry != "" && l.Level == "info" && l.To == "":
		return fmt.Sprintf("%-9s %s: %s dropped", "policy", l.Reason, l.Entry)
	case l.Entry != "" && l.Level == "info":
		return fmt.Sprintf("%-9s %s: %s %s -> %s", "policy", l.Reason, l.Entry, l.From, l.To)
	case l.Took > 0:
		return fmt.Sprintf("%-9s %s in %.0f ms", l.Step, l.Message, l.Took)
	case l.Error != "":
		return fmt.Sprintf("%-9s %s: %s", l.Step, l.Message, l.Error)
	case l.Reason != "" && l.Step == "":
		return fmt.Sprintf("%-9s %s (%s)", "", l.Message, l.Reason)
	}
	return fmt.Sprintf("%-9s %s", l.Step, l.Message)
}

// running waits until the daemon has recovered and takes messages.
func (d *daemon) running(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-d.gone:
		return errors.New("the daemon ended at once")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handedOff waits until the daemon says that there was nothing to do, and returns how
// long that took from now.
func (d *daemon) handedOff(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	select {
	case at := <-d.handoff:
		return max(at.Sub(began), 0).Round(time.Millisecond), nil
	case <-d.gone:
		return 0, errors.New("the daemon ended")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// stop ends the daemon as an operator would, and waits. It may be called twice.
func (d *daemon) stop() error {
	d.once.Do(func() {
		d.err = stopChild(d.cmd, d.gone)
	})
	return d.err
}

// startChild starts a program in a process group of its own, so that a Ctrl-C reaches it
// through us only.
func startChild(cmd *exec.Cmd, pipe func() (io.ReadCloser, error)) (io.Reader, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, err := pipe()
	if err != nil {
		return nil, err
	}
	return r, cmd.Start()
}

// stopChild sends SIGTERM and waits until the child's output, if somebody reads it, and
// then the child have ended. A child that does not end within a minute is killed.
func stopChild(cmd *exec.Cmd, drained <-chan struct{}) error {
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if drained != nil {
		<-drained // Wait closes the pipe
	}
	return cmd.Wait()
}

// firstLine reads one line, no longer than ctx lives.
func firstLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1) // buffered: the reader ends even when nobody asks
	go func() {
		line, err := bufio.NewReader(r).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		return a.line, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
