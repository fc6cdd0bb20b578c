// Command peers does with libraries of others what product does, in a process of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"imagemanager.internal/test/bench/report"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New(`usage: peers versions | apply TAR DIRECTORY | tar2ext4 TAR DEVICE |
	manager|transfermanager URL FILE BYTES CONNECTIONS`)

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "versions" {
		return printVersions()
	}
	w := report.Start()
	if err := job(ctx, args); err != nil {
		return err
	}
	return w.Print()
}

// job does what is timed.
func job(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "apply":
		return apply(ctx, args[1], args[2])
	case len(args) == 3 && args[0] == "tar2ext4":
		return convert(args[1], args[2])
	case len(args) == 5:
		size, err := strconv.ParseInt(args[3], 10, 64)
		if err != nil {
			return err
		}
		connections, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		return fetch(ctx, args[0], args[1], args[2], size, connections)
	}
	return errUsage
}
