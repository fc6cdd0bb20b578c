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

// daemon is a running `consumer run`.
type daemon struct {
	cmd       *exec.Cmd
	out       io.Writer
	ended     chan struct{}  // closed when its log has ended
	ready     chan struct{}  // closed when it runs
	handedOff chan time.Time // buffered by one: one image is uploaded twice
	stopped   func() error
}

// logLine is what the demo reads of a line of the daemon's log.
type logLine struct {
	Level   string  `json:"level"`
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

// startDaemon starts the program in a process group of its own, so that a Ctrl-C reaches
// it only through us.
func startDaemon(program string, env []string, out io.Writer) (*daemon, error) {
	cmd := exec.Command(program, "run") //nolint:noctx // stopped by SIGTERM, in its turn
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &daemon{
		cmd: cmd, out: out, ended: make(chan struct{}), ready: make(chan struct{}), handedOff: make(chan time.Time, 1),
	}
	d.stopped = sync.OnceValue(d.terminate)
	go d.follow(log)
	return d, nil
}

// follow prints the daemon's log as it comes, in words.
func (d *daemon) follow(log io.Reader) {
	defer close(d.ended)
	began := time.Now()
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var l logLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			fmt.Fprintf(d.out, "  %s\n", lines.Text())
			continue
		}
		fmt.Fprintf(d.out, "%7.2fs  %s\n", time.Since(began).Seconds(), l.words())
		switch l.Message {
		case "running":
			close(d.ready)
		case "handed off: nothing to do":
			select {
			case d.handedOff <- time.Now():
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
	case l.Entry != "" && l.Level == "debug" && l.To == "":
		return fmt.Sprintf("%-9s %s: %s dropped", "policy", l.Reason, l.Entry)
	case l.Entry != "" && l.Level == "debug":
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

// waitRunning waits until the daemon has recovered and takes messages.
func (d *daemon) waitRunning(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-d.ended:
		return errors.New("the daemon ended at once")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitHandedOff waits until the daemon has handed an image off: there was nothing to do.
// It returns when that was.
func (d *daemon) waitHandedOff(ctx context.Context) (time.Time, error) {
	select {
	case at := <-d.handedOff:
		return at, nil
	case <-d.ended:
		return time.Time{}, errors.New("the daemon ended")
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// stop ends the daemon as an operator would, and waits. It may be called twice.
func (d *daemon) stop() error { return d.stopped() }

// terminate sends SIGTERM and waits. After a minute it kills the daemon.
func (d *daemon) terminate() error {
	kill := time.AfterFunc(time.Minute, func() { _ = d.cmd.Process.Kill() })
	defer kill.Stop()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.ended // Wait closes the pipe
	return d.cmd.Wait()
}
