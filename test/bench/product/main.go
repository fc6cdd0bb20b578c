// Command product does once, in a process of its own, what the daemon does with an image:
// judge it, unpack it to a device, or download it. So it is timed from its start to its
// end, as its peers are. It prints how long each phase took, as JSON.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/bench/report"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "product:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New(`usage: product engines | check TAR | sha256 TAR | unpack ENGINE TAR DEVICE |
	download URL DIRECTORY BYTES CONNECTIONS COUNT`)

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "engines" {
		return listEngines()
	}
	w := report.Start()
	if err := job(ctx, w, args); err != nil {
		return err
	}
	return w.Print()
}

// job does what is timed.
func job(ctx context.Context, w *report.Watch, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "check":
		src, _, err := judge(ctx, args[1])
		return errors.Join(err, src.Close())
	case len(args) == 2 && args[0] == "sha256":
		return hash(args[1])
	case len(args) == 4 && args[0] == "unpack":
		return unpack(ctx, w, args[1], args[2], args[3])
	case len(args) == 6 && args[0] == "download":
		var numbers [3]int64
		for i, text := range args[3:] {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return err
			}
			numbers[i] = n
		}
		return fetch(ctx, args[1], args[2], numbers[0], int(numbers[1]), int(numbers[2]))
	}
	return errUsage
}

func listEngines() error {
	var names []string
	for _, e := range engines(nil) {
		names = append(names, e.name)
	}
	return json.NewEncoder(os.Stdout).Encode(names)
}

// judge reads the headers. The file is never nil.
func judge(ctx context.Context, path string) (*os.File, *archive.Plan, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := src.Stat()
	if err != nil {
		return src, nil, err
	}
	plan, err := archive.Check(ctx, src, info.Size(), archive.Options{Policy: archive.Distro})
	return src, plan, err
}

func hash(path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.CopyBuffer(sha256.New(), struct{ io.Reader }{src}, make([]byte, 1<<20))
	return err
}

func unpack(ctx context.Context, w *report.Watch, name, tar, device string) error {
	for _, e := range engines(w.Lap) {
		if e.name != name {
			continue
		}
		src, plan, err := judge(ctx, tar)
		if err == nil {
			w.Lap("judge")
			err = e.unpack(ctx, src, plan, device)
		}
		return errors.Join(err, src.Close())
	}
	return fmt.Errorf("no engine %q", name)
}
