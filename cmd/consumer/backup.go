package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/docker/go-units"
)

// cmdBackup copies the database beside a running daemon or without one. It takes no lock:
// SQLite gives it one moment's view.
func cmdBackup(ctx context.Context, args []string, out io.Writer) error {
	var force *bool
	more := func(fs *flag.FlagSet) { force = fs.Bool("force", false, "replace an existing file") }
	return showMore(ctx, "backup", "<file>", args, out, more, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		if fs.NArg() != 1 {
			return &usageError{errors.New("backup takes one file to write; flags come first")}
		}
		b, err := s.store.Backup(ctx, fs.Arg(0), *force)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, b)
		}
		fmt.Fprintf(out, "%s: %s, up to event %d\n", b.Path, units.BytesSize(float64(b.Bytes)), b.Seq)
		return nil
	})
}
