package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

// cmdReconcile brings journal, pool and files into agreement, as the daemon does at its start and every RECONCILE_INTERVAL; or shows
// what it would do, also beside a running daemon.
func cmdReconcile(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("reconcile", "", out)
	asJSON := jsonFlag(fs)
	dry := fs.Bool("dry-run", false, "only show what would be done; works beside a running daemon")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	locked := s.lockState("daemon.lock")
	if locked != nil && (!*dry || !errors.Is(locked, errLocked)) {
		return fmt.Errorf("%w: a daemon reconciles by itself, every RECONCILE_INTERVAL; --dry-run works beside it", locked)
	}
	p, err := s.openBeside(ctx)
	if err != nil {
		return err
	}
	plan, err := p.Plan(ctx, locked == nil)
	if err == nil && !*dry {
		_, err = p.Recover(ctx)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(out, append([]pipeline.Action{}, plan...))
	}
	if len(plan) == 0 {
		fmt.Fprintln(out, "journal, pool and files agree: nothing to do")
		return nil
	}
	t := newTable(out, "DO", "WHAT", "IMAGE", "REASON")
	for _, a := range plan {
		image := ""
		if a.Image > 0 {
			image = fmt.Sprint(a.Image)
		}
		t.row(string(a.Do), a.What, dash(image), a.Reason)
	}
	return t.flush()
}
