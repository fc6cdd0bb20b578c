package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

func statusCommand() *cobra.Command {
	return withSettings(withTable(&cobra.Command{
		Use:   "status",
		Short: "Show health at a glance: readiness, work, pool, images",
		Long: `Status shows whether the daemon takes work, and if not, why and what to do; how far
each image has come; the pool, the queue, and the images in every state. A daemon
that runs is asked on LISTEN_ADDR; otherwise the database is read. Nothing is
changed, and no root is needed for a database that may be read.`,
		Example:     "  consumer status\n  consumer status --json | jq .daemon.conditions",
		Annotations: exits(3),
		RunE:        looking(showStatus),
	}), "listen")
}

// statusReport is what status shows.
type statusReport struct {
	Running  bool   `json:"daemon_running"`
	Holder   string `json:"held_by,omitempty"`   // the process with the state directory
	NoAnswer string `json:"no_answer,omitempty"` // why the daemon was not asked, though it runs
	StateDir string `json:"state_dir"`
	ReadOnly bool   `json:"read_only"` // the state directory, for this user

	Images      map[store.State]int `json:"images"`
	Snapshots   int                 `json:"snapshots"`
	Quarantined int64               `json:"quarantined"`
	Pending     []pendingImage      `json:"pending"`
	Pool        *devmapper.Status   `json:"pool"`              // nil if it is not seen
	NoPool      string              `json:"no_pool,omitempty"` // why the pool is not seen
	Daemon      *daemonStatus       `json:"daemon"`            // its answer; nil without one
}

// pendingImage is an image with what is done with it now.
type pendingImage struct {
	store.Image
	Doing string `json:"doing"`
}

// What is done with a pending image.
const (
	doingWait        = "waiting"     // for its next attempt
	doingWork        = "working"     // an attempt runs
	doingInterrupted = "interrupted" // its attempt died with the daemon; the next start goes on
)

func showStatus(ctx context.Context, c *call) error {
	r, err := c.statusReport(ctx)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, r)
	}
	return c.printStatus(r)
}

// statusReport asks the daemon if it runs, and reads the database for the rest.
func (c *call) statusReport(ctx context.Context) (*statusReport, error) {
	r := &statusReport{StateDir: c.cfg.StateDir, ReadOnly: c.store.ReadOnly()}
	var err error
	if r.Holder, err = lockOwner(c.cfg.StateDir, daemonLock); err != nil {
		return nil, err
	}
	if r.Running = r.Holder != ""; r.Running {
		if r.Daemon, err = askDaemon(ctx, c.cfg); err != nil {
			r.NoAnswer = fmt.Sprintf("LISTEN_ADDR (%s): %v; if it listens elsewhere, give that address as LISTEN_ADDR "+
				"or --listen", dash(c.cfg.Listen), err)
		}
	}
	if err := r.readJournal(ctx, c.store); err != nil {
		return nil, err
	}
	if p := r.pipeline(); p != nil {
		r.takeFrom(p)
		return r, nil
	}
	return r, r.lookAtPool(ctx, c.store)
}

// pipeline is what the daemon says of its work; nil if it says nothing.
func (r *statusReport) pipeline() *pipeline.Status {
	if r.Daemon == nil {
		return nil
	}
	return r.Daemon.Pipeline
}

// takeFrom takes what the daemon knows better than its database.
func (r *statusReport) takeFrom(p *pipeline.Status) {
	r.Pool = p.Pool
	if p.Pool == nil {
		r.NoPool = "not looked at yet"
	}
	if p.Images != nil {
		r.Images = p.Images
	}
	if p.Quarantined != nil {
		r.Quarantined = *p.Quarantined
	}
}

func (r *statusReport) readJournal(ctx context.Context, st *store.Store) error {
	counts, err := st.Counts(ctx)
	if err != nil {
		return err
	}
	r.Images = map[store.State]int{}
	for _, state := range store.States() {
		r.Images[state] = counts[state]
	}
	pending, err := st.PendingImages(ctx)
	if err != nil {
		return err
	}
	snapshots, err := st.Snapshots(ctx)
	if err != nil {
		return err
	}
	size, err := st.Size(ctx)
	if err != nil {
		return err
	}
	r.Snapshots, r.Quarantined, r.Pending = len(snapshots), size.Quarantined, []pendingImage{}
	for _, img := range pending {
		r.Pending = append(r.Pending, r.pendingImage(img))
	}
	return nil
}

// pendingImage says what is done with an image. Without a daemon nothing is, whatever the
// journal says: its attempt was cut off.
func (r *statusReport) pendingImage(img store.Image) pendingImage {
	p := pendingImage{img, doingWait}
	if img.Running {
		p.Doing = doingWork
		if p.Running = r.Running; !r.Running {
			p.Doing = doingInterrupted
		}
	}
	return p
}

// lookAtPool looks at the pool without the daemon, and does not attach it.
func (r *statusReport) lookAtPool(ctx context.Context, st *store.Store) error {
	row, err := st.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		r.NoPool = "none yet: run `consumer pool create`"
		return nil
	}
	if err != nil {
		return err
	}
	status, err := devmapper.Look(poolConfig(row))
	switch {
	case errors.Is(err, devmapper.ErrNotFound):
		r.NoPool = "detached; the next start of the daemon attaches it"
	case err != nil:
		r.NoPool = fmt.Sprintf("not seen: %v", err)
	default:
		r.Pool = &status
	}
	return nil
}
