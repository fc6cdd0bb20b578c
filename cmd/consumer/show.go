package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/store"
)

func jsonFlag(fs *flag.FlagSet) *bool { return fs.Bool("json", false, "print JSON for programs") }

// openCommand parses the command line and opens the journal.
func openCommand(ctx context.Context, fs *flag.FlagSet, args []string,
	open func(context.Context, string) (*store.Store, error),
) (*system, error) {
	cfg, err := loadConfig(fs, args)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cfg.checkCommon()...); err != nil {
		return nil, &usageError{err}
	}
	st, err := open(ctx, databasePath(cfg.StateDir))
	if err != nil {
		return nil, err
	}
	s := &system{cfg: cfg, store: st, log: newLogger(cfg.LogLevel, os.Stderr, stderrIsTerminal())}
	s.onClose(st.Close)
	return s, nil
}

// table is text in columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintln(t.w, strings.Join(cells, "\t")) }
func (t *table) flush() error        { return t.w.Flush() }

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// show is a command that opens the journal and prints.
func show(ctx context.Context, name, argNames string, args []string, out io.Writer,
	do func(*system, *flag.FlagSet, bool) error,
) error {
	return showMore(ctx, name, argNames, args, out, func(*flag.FlagSet) {}, do)
}

// showMore is show with flags of its own.
func showMore(ctx context.Context, name, argNames string, args []string, out io.Writer, more func(*flag.FlagSet),
	do func(*system, *flag.FlagSet, bool) error,
) (err error) {
	fs := flags(name, argNames, out)
	asJSON := jsonFlag(fs)
	more(fs)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if argNames == "" {
		if err := noArgs(fs); err != nil {
			return err
		}
	}
	return do(s, fs, *asJSON)
}

func cmdStatus(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "status", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		counts, err := s.store.Counts(ctx)
		if err != nil {
			return err
		}
		pending, err := s.store.Unfinished(ctx)
		if err != nil {
			return err
		}
		snapshots, err := s.store.Snapshots(ctx)
		if err != nil {
			return err
		}
		running := s.daemonRunning()
		if asJSON {
			return printJSON(out, map[string]any{
				"daemon_running": running, "images": counts,
				"pending": nonNil(pending), "snapshots": len(snapshots),
			})
		}
		fmt.Fprintf(out, "daemon %s; %d active, %d pending, %d rejected, %d violations, %d dead; %d snapshots\n",
			map[bool]string{true: "running", false: "not running"}[running],
			counts[store.StateActive], counts[store.StatePending], counts[store.StateRejected], counts[store.StateViolation],
			counts[store.StateDead], len(snapshots))
		if len(pending) == 0 {
			return nil
		}
		t := newTable(out, "IMAGE", "KEY", "STAGE", "RUNNING", "FAILURES", "SINCE", "REASON")
		for _, img := range pending {
			t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.Stage), fmt.Sprint(img.Running),
				fmt.Sprint(img.Failures), ago(img.UpdatedAt), oneLine(img.Reason))
		}
		return t.flush()
	})
}

func cmdImages(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "images", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		images, err := s.store.Images(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, nonNil(images))
		}
		t := newTable(out, "IMAGE", "KEY", "STATE", "STAGE", "SIZE", "ENTRIES", "DEVICE", "SHA256", "TREE", "UPDATED",
			"REASON")
		for _, img := range images {
			size, sum, device, entries, tree := "-", "-", "-", "-", "-"
			if img.Blob != nil {
				size, sum = units.BytesSize(float64(img.Blob.Size)), short(img.Blob.SHA256)
			}
			if img.Tree != nil {
				device, entries, tree = fmt.Sprint(img.Tree.Device), fmt.Sprint(img.Tree.Entries),
					short(strings.TrimPrefix(img.Tree.Digest, "sha256:"))
			}
			t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.State), dash(string(img.Stage)), size, entries,
				device, sum, tree, ago(img.UpdatedAt), oneLine(img.Reason))
		}
		return t.flush()
	})
}

func cmdSnapshots(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "snapshots", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		list, err := s.store.Snapshots(ctx)
		if err != nil {
			return err
		}
		return printSnapshots(out, list, asJSON)
	})
}

func printSnapshots(out io.Writer, list []store.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, nonNil(list))
	}
	t := newTable(out, "DEVICE", "IMAGE", "KEY", "STATE", "PATH", "CREATED")
	for _, sn := range list {
		t.row(fmt.Sprint(sn.Device), fmt.Sprint(sn.Image), quoted(sn.Key), sn.State, sn.Path, ago(sn.CreatedAt))
	}
	return t.flush()
}

func cmdHistory(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "history", "<key|image>", args, out, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		images, err := s.find(ctx, fs)
		if err != nil {
			return err
		}
		var all []store.Event
		for _, img := range images {
			events, err := s.store.History(ctx, img.ID)
			if err != nil {
				return err
			}
			all = append(all, events...)
		}
		if asJSON {
			return printJSON(out, nonNil(all))
		}
		t := newTable(out, "SEQ", "TIME", "IMAGE", "ATTEMPT", "STAGE", "EVENT", "DETAIL")
		for _, e := range all {
			t.row(fmt.Sprint(e.Seq), e.At.Format("15:04:05.000"), fmt.Sprint(e.Image), fmt.Sprint(e.Attempt),
				dash(string(e.Stage)), string(e.Kind), detail(e))
		}
		return t.flush()
	})
}

// detail says in a few words what an event changed.
func detail(e store.Event) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Verdict != "" {
		add("%s:", e.Verdict)
	}
	if e.Reason != "" {
		add("%s", oneLine(e.Reason))
	}
	if o := e.Detail.Object; o != nil {
		add("s3://%s/%s version %s", o.Bucket, strings.Trim(quoted(o.Key), `"`), o.Version())
	}
	if b := e.Detail.Blob; b != nil {
		add("%s, sha256 %s", units.BytesSize(float64(b.Size)), short(b.SHA256))
	}
	if d := e.Detail.Device; d != nil {
		add("device %d %s", d.ID, d.State)
	}
	if tr := e.Detail.Tree; tr != nil {
		add("%d entries, tree %s", tr.Entries, short(strings.TrimPrefix(tr.Digest, "sha256:")))
	}
	if sn := e.Detail.Snapshot; sn != nil {
		add("%s", sn.Path)
	}
	return strings.Join(parts, " ")
}

// cmdSnapshot makes a further snapshot, beside a running daemon or without one.
func cmdSnapshot(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "snapshot", "<key|image>", args, out, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		image, err := s.findActive(ctx, fs)
		if err != nil {
			return err
		}
		l, err := s.openBeside(ctx)
		if err != nil {
			return err
		}
		sn, err := l.host.Snapshot(ctx, image)
		if err != nil {
			return err
		}
		return printSnapshots(out, []store.Snapshot{sn}, asJSON)
	})
}

// find returns the images that the argument names, by id or by key, oldest first; at
// least one.
func (s *system) find(ctx context.Context, fs *flag.FlagSet) ([]store.Image, error) {
	if fs.NArg() != 1 {
		return nil, &usageError{fmt.Errorf("%s takes one key or image id", fs.Name())}
	}
	name := fs.Arg(0)
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		img, err := s.store.Image(ctx, id)
		return []store.Image{img}, err
	}
	images, err := s.store.ByKey(ctx, name)
	if err == nil && len(images) == 0 {
		return nil, fmt.Errorf("key %q: %w; `consumer images` lists them", name, store.ErrNotFound)
	}
	return images, err
}

// findActive returns the newest image that is active of those that the argument names,
// else the newest.
func (s *system) findActive(ctx context.Context, fs *flag.FlagSet) (int64, error) {
	images, err := s.find(ctx, fs)
	if err != nil {
		return 0, err
	}
	for _, img := range slices.Backward(images) {
		if img.State == store.StateActive {
			return img.ID, nil
		}
	}
	return images[len(images)-1].ID, nil
}

// nonNil makes an empty list print as [], not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// quoted escapes what a hostile key could do to a terminal.
func quoted(key string) string {
	if q := strconv.Quote(key); q != `"`+key+`"` {
		return q
	}
	return key
}

// oneLine keeps a reason on its line of a table.
func oneLine(text string) string {
	const most = 160
	text = strings.Trim(strconv.Quote(text), `"`)
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ReplaceAll(text, `\"`, `"`)
}

func short(hex string) string { return hex[:min(12, len(hex))] }

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func ago(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }
