// Package soak keeps a daemon busy on a real thin pool with a random mix of what may
// happen to it, and holds all that is there afterwards against a model: uploads,
// overwrites, deletions, duplicates and losses of events, hostile archives, operators'
// commands, users who write to snapshots, faults of S3 and SQS, kills and restarts, with
// a reconcile every second.
//
// `make soak MINUTES=15` takes its time; `make test-uml` runs a short form, which is one
// round of steps. Step i of a seed is the same thing to do in every run; what it is done
// to, and when, depends on the machine. An interrupt ends the run early, with its report.
//
// In the second half nobody ends the daemon any more, to show what it keeps.
package soak

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imagemanager.internal/test/cloud"
	machine "imagemanager.internal/test/host"
)

// shortSeed is that of the short form.
const shortSeed = 1

// A daemon that is busy for long loses nothing of its users' and keeps nothing for
// itself.
func TestSoak(t *testing.T) {
	machine.NeedPool(t)
	s := &soak{Host: &machine.Host{T: t}, began: time.Now(), over: make(chan struct{}), seed: shortSeed}
	s.Failed = s.note
	s.length = time.Duration(setting("CIM_SOAK_MINUTES", 0) * float64(time.Minute))
	if s.length > 0 {
		s.seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	s.seed = uint64(setting("CIM_SOAK_SEED", float64(s.seed)))
	fmt.Printf("seed %d\n", s.seed)

	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if t.Context().Err() == nil {
			fmt.Println("interrupted: what is under way is brought to its end")
			s.finish()
		}
		stop() // the next interrupt ends the process
	})()
	if s.length > 0 {
		defer time.AfterFunc(s.length, s.finish).Stop()
	}
	s.install()
	s.mix()
	s.settle()
	s.report()
}

// setting is a number from the environment.
func setting(name string, otherwise float64) float64 {
	n, err := strconv.ParseFloat(os.Getenv(name), 64)
	if err != nil {
		return otherwise
	}
	return n
}

// install makes bucket, queue and pool, and starts the daemon.
func (s *soak) install() {
	t := s.T
	dir := t.TempDir()
	s.State = filepath.Join(dir, "state")
	c, err := cloud.Emulate(filepath.Join(dir, "cloud"), nil)
	s.Check(err)
	t.Cleanup(func() { s.Check(c.Close()) })
	s.Cloud, err = c.Bucket(t.Context(), "soak")
	s.Check(err)
	s.Check(s.Cloud.Notify(t.Context()))
	s.Env = []string{
		"LOG_LEVEL=info", "RECONCILE_INTERVAL=1s", "MAX_ATTEMPTS=5", "DOWNLOAD_TIMEOUT=5s",
		"SHUTDOWN_GRACE=500ms", "SQS_DRAIN=200ms",
	}
	if s.kept = os.Getenv("CIM_SOAK_DIR"); s.kept == "" {
		s.OpenLog(filepath.Join(dir, "daemon.log"))
		t.Cleanup(s.Close)
	} else {
		s.OpenLog(filepath.Join(s.kept, fmt.Sprintf("%d.log", s.seed)))
		t.Cleanup(s.keep)
	}
	s.Consumer("pool", "create", "--name", "soak", "--data-size", "4GiB", "--thins", "400")
	s.OpenStore()
	s.empty = s.checkInvariants("at the beginning").Pool.UsedData
	s.start()
}

// keep is Close where log and journal of a run that failed are kept, and not shown.
func (s *soak) keep() {
	if s.T.Failed() {
		journal := filepath.Join(s.kept, fmt.Sprintf("%d.db", s.seed))
		s.Consumer("backup", "--force", journal)
		fmt.Printf("  log and journal: %s, %s\n", filepath.Join(s.kept, fmt.Sprintf("%d.log", s.seed)), journal)
	}
	s.Kill()
	s.Consumer("pool", "detach")
	s.Release()
}
