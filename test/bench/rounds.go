package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how many times the wanted number of rounds is run at most.
const patience = 4

// lab is where jobs run.
type lab struct {
	work, bin string
	rounds    int
	others    float64 // percent of one CPU
}

func newLab(o options) (*lab, error) {
	l := &lab{work: o.work, bin: o.bin, rounds: o.rounds, others: o.others}
	if o.smoke {
		l.rounds, l.others = 1, 1e6
	}
	return l, os.MkdirAll(l.work, 0o700)
}

// path finds a program: ours, or the machine's.
func (l *lab) path(name string) string {
	if own := filepath.Join(l.bin, name); l.bin != "" {
		if _, err := os.Stat(own); err == nil {
			return own
		}
	}
	return name
}

// turns runs all jobs in turns, until each has enough undisturbed runs or patience ends.
func (l *lab) turns(ctx context.Context, jobs []job) ([]series, error) {
	all := make([]series, len(jobs))
	for i, j := range jobs {
		all[i] = series{Job: j.name, Kind: j.kind}
	}
	for round := 0; round < patience*l.rounds; round++ {
		missing := false
		for i, j := range jobs {
			if len(all[i].Runs) >= l.rounds {
				continue
			}
			r, err := l.once(ctx, j)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", j.name, err)
			}
			if r.Others > l.others {
				all[i].Discarded++
			} else {
				all[i].Runs = append(all[i].Runs, r)
			}
			missing = missing || len(all[i].Runs) < l.rounds
		}
		if !missing {
			break
		}
	}
	for _, s := range all {
		fmt.Printf("  %-40s %s\n", s.Job, s)
	}
	return all, nil
}

// once prepares what a job needs, runs it, and takes it all away.
func (l *lab) once(ctx context.Context, j job) (r runResult, err error) {
	if err := warm(j.warm); err != nil {
		return r, err
	}
	dir := filepath.Join(l.work, "mount")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return r, err
	}
	device := ""
	if j.needs == needsDevice || j.needs == needsFilesystem || j.needs == needsMount {
		var remove func() error
		if device, remove, err = l.freshDevice(ctx, j.size); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	if j.needs == needsFilesystem || j.needs == needsMount {
		if err := format(ctx, device); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, check(ctx, device)) }() // before it is removed
	}
	syscall.Sync() // what others wrote is not this job's
	argv := make([]string, len(j.argv))
	for i, a := range j.argv {
		argv[i] = strings.NewReplacer(theDevice, device, theDirectory, dir).Replace(a)
	}
	before := sampleCPU()
	began := time.Now()
	if j.needs == needsMount {
		if err := mount(device, dir); err != nil {
			return r, err
		}
	}
	r, err = l.child(ctx, argv)
	if j.needs == needsMount {
		err = errors.Join(err, unmount(dir))
	}
	r.Seconds = time.Since(began).Seconds()
	r.Others = 100 * (sampleCPU().others(before) - r.User) / r.Seconds
	if j.needs == needsDirectory {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return r, err
}

// child runs the program. Our own programs report on themselves.
func (l *lab) child(ctx context.Context, argv []string) (runResult, error) {
	cmd := exec.CommandContext(ctx, l.path(argv[0]), argv[1:]...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return runResult{}, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	r := runResult{User: cmd.ProcessState.UserTime().Seconds(), System: cmd.ProcessState.SystemTime().Seconds()}
	if argv[0] == "product" || argv[0] == "peers" {
		return r, json.Unmarshal(out.Bytes(), &r.Report)
	}
	return r, nil
}

// warm reads a file, so that its pages are in memory.
func warm(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
	return err
}

// cpu is time spent in programs, in seconds: of the whole machine, and of this process.
// Time in the kernel is left out: much of a job's is spent by kernel threads.
type cpu struct{ all, self float64 }

func sampleCPU() cpu {
	var user, nice, system, idle, iowait, irq, softirq, steal float64
	text, err := os.ReadFile("/proc/stat")
	if err == nil {
		_, err = fmt.Sscanf(string(text), "cpu %f %f %f %f %f %f %f %f",
			&user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
	}
	var usage syscall.Rusage
	if err := errors.Join(err, syscall.Getrusage(syscall.RUSAGE_SELF, &usage)); err != nil {
		return cpu{}
	}
	const ticks = 100 // a second; USER_HZ on every Linux that Go runs on
	return cpu{(user + nice + steal) / ticks, time.Duration(usage.Utime.Nano()).Seconds()}
}

// others is what was spent since then by neither this process nor, so far, anybody else
// that is known.
func (c cpu) others(before cpu) float64 { return c.all - before.all - (c.self - before.self) }
