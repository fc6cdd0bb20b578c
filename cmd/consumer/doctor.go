package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/doctor"
)

// errUnfit is returned when a check failed.
var errUnfit = errors.New("the daemon does not work like this")

func doctorCommand() *cobra.Command {
	return withSettings(withJSON(&cobra.Command{
		Use:   "doctor",
		Short: "Check machine, queue, bucket and pool, and say what to do",
		Long: `Doctor looks for what would keep the daemon from its work, on this machine and in AWS,
and changes nothing. A line for each check begins with ok, warn or fail; the line
below it says what to do. It runs beside the daemon or without one. Without root it
sees less, and says of what as a warning.

Give it the daemon's settings, and for the sake of its rights run it as the daemon
runs: see docs/operating.md.`,
		Example: `  consumer doctor
  consumer doctor --json | jq '.checks[] | select(.result != "ok")'`,
		SuggestFor:  []string{"diagnose", "health", "preflight"},
		Annotations: exits(),
		RunE:        needs{anything, noJournal}.then(runDoctor),
	}), "bucket", "queue-url", "region", "endpoint-url", "listen")
}

// anything accepts all settings: what is wrong with them is a finding.
func anything(config) error { return nil }

// diagnosis is what doctor prints. docs/json.md describes its JSON.
type diagnosis struct {
	OK     int              `json:"ok"`
	Warn   int              `json:"warn"`
	Fail   int              `json:"fail"`
	Checks []doctor.Finding `json:"checks"`
}

func runDoctor(ctx context.Context, c *call) error {
	d := diagnose(slices.Concat(c.cfg.examine(), c.cfg.machine().Check(ctx), examineCloud(ctx, c.system)))
	if err := d.print(c.output); err != nil {
		return err
	}
	if d.Fail > 0 {
		return fmt.Errorf("%w: %s", errUnfit, checks(d.Fail, "fail"))
	}
	return ctx.Err()
}

func diagnose(found []doctor.Finding) diagnosis {
	d := diagnosis{Checks: found}
	for _, f := range found {
		switch f.Result {
		case doctor.OK:
			d.OK++
		case doctor.Warn:
			d.Warn++
		case doctor.Fail:
			d.Fail++
		}
	}
	return d
}

// print never cuts a line: its end is the remedy.
func (d diagnosis) print(o *output) error {
	if o.asJSON {
		return printJSON(o.out, d)
	}
	for i, f := range d.Checks {
		if next := i + 1; next < len(d.Checks) && d.Checks[next].Text == f.Text {
			f.Remedy = "" // the last of several for one reason has it
		}
		printFinding(o.out, f)
	}
	_, err := fmt.Fprintf(o.out, "\n%d ok, %d warn, %d fail\n", d.OK, d.Warn, d.Fail)
	return err
}

func printFinding(out io.Writer, f doctor.Finding) {
	fmt.Fprintf(out, "%-4s  %-17s  %s\n", f.Result, f.Check, oneLine(f.Text))
	if f.Remedy != "" {
		fmt.Fprintf(out, "%25s→ %s\n", "", oneLine(f.Remedy))
	}
}

// checks says "1 check fails" or "2 checks fail".
func checks(n int, what string) string {
	if n == 1 {
		return "1 check " + what + "s"
	}
	return fmt.Sprintf("%d checks %s", n, what)
}

// examine returns what is wrong with the settings.
func (c config) examine() []doctor.Finding {
	const check = "settings"
	err := c.checkRun()
	if err == nil {
		return []doctor.Finding{{Check: check, Result: doctor.OK, Text: "each can be read, and is within its limits"}}
	}
	all := []error{err}
	if list, is := err.(interface{ Unwrap() []error }); is {
		all = list.Unwrap()
	}
	var found []doctor.Finding
	for _, err := range all {
		found = append(found, doctor.Finding{
			Check: check, Result: doctor.Fail, Text: err.Error(),
			Remedy: "correct the variable, or the flag: see `consumer help settings`",
		})
	}
	return found
}

// machine looks at this machine.
func (c config) machine() *doctor.Machine {
	return &doctor.Machine{
		StateDir: c.StateDir, Database: databasePath(c.StateDir), Listen: c.Listen,
		MinFreeDisk: int64(c.MinFreeDisk), MinFreeData: c.MinFreeData, MinFreeMetadata: c.MinFreeMetadata,
		Daemon: func(ctx context.Context) (int, error) { return daemonPID(ctx, c) },
	}
}

// examineCloud looks at queue and bucket, if the settings name them.
func examineCloud(ctx context.Context, s *system) []doctor.Finding {
	cfg := s.cfg
	problems := append(append(cfg.checkBucket(), cfg.checkQueues()...), cfg.checkPlaces()...)
	if len(problems) > 0 {
		return doctor.NoCloud("the settings do not name bucket and queue")
	}
	cloud, err := newCloud(ctx, s)
	if err != nil {
		return doctor.NoCloud(err.Error())
	}
	return cloud.Check(ctx)
}

// newCloud looks at queue and bucket.
func newCloud(ctx context.Context, s *system) (*doctor.Cloud, error) {
	clock := &doctor.Clock{}
	s3c, sqsc, err := s.clients(ctx, clock.Watch)
	if err != nil {
		return nil, err
	}
	return &doctor.Cloud{
		S3: s3c, SQS: sqsc, Credentials: sqsc.Options().Credentials, Clock: clock,
		Bucket: s.cfg.Bucket, Prefix: s.cfg.Prefix, QueueURL: s.cfg.QueueURL, DeadLetterURL: s.cfg.DeadLetter,
		Region: s.cfg.region(), Visibility: s.cfg.Visibility, MaxAttempts: s.cfg.MaxAttempts,
	}, nil
}

// daemonPID returns the process of the daemon that answers at LISTEN_ADDR.
func daemonPID(ctx context.Context, cfg config) (int, error) {
	status, err := askDaemon(ctx, cfg)
	if err != nil {
		return 0, err
	}
	return status.PID, nil
}
