package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

// errVerify says that a device does not hold what was sealed.
var errVerify = errors.New("not what was sealed")

// cmdVerify proves images again, beside a running daemon or without one.
func cmdVerify(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("verify", "<key|image>", out)
	asJSON := jsonFlag(fs)
	all := fs.Bool("all", false, "every image")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var ids []int64
	if !*all {
		images, err := s.find(ctx, fs)
		if err != nil {
			return err
		}
		ids = append(ids, images[len(images)-1].ID)
	}
	p, err := s.openBeside(ctx)
	if err != nil {
		return err
	}
	if *all {
		if ids, err = p.Sealed(ctx); err != nil {
			return err
		}
	}
	return verify(ctx, p, ids, out, *asJSON)
}

func verify(ctx context.Context, p *pipeline.Pipeline, ids []int64, out io.Writer, asJSON bool) error {
	results := []pipeline.Verified{}
	var errs []error
	for _, id := range ids {
		v, err := p.Verify(ctx, id)
		if err != nil {
			return fmt.Errorf("image %d: %w", id, err)
		}
		results = append(results, v)
		if !v.Same {
			errs = append(errs, fmt.Errorf("image %d: device %d: %w", v.Image, v.Device, errVerify))
		}
	}
	if asJSON {
		return errors.Join(append(errs, printJSON(out, results))...)
	}
	t := newTable(out, "IMAGE", "KEY", "DEVICE", "RESULT", "SEAL RECORD", "TREE")
	for _, v := range results {
		t.row(fmt.Sprint(v.Image), quoted(v.Key), fmt.Sprint(v.Device), map[bool]string{true: "as sealed", false: "DIFFERS"}[v.Same], v.Seal, v.Sealed)
	}
	errs = append(errs, t.flush())
	for _, v := range results {
		for _, line := range v.Differences {
			fmt.Fprintf(out, "image %d: %s\n", v.Image, line)
		}
	}
	return errors.Join(errs...)
}
