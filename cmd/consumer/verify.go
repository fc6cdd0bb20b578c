package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// errVerify is returned when a device does not hold what was sealed.
var errVerify = errors.New("not what was sealed")

func verifyCommand() *cobra.Command {
	var all bool
	cmd := completing(withTable(&cobra.Command{
		Use:   "verify [<key|image>]",
		Short: "Read an image's device and compare it with its seal; --all for every image",
		Long: `Verify reads an image's device as it is on the disk, and compares every file with
what was sealed. It names each difference. It works beside a running daemon or
without one. "consumer help names" says how else to name an image.`,
		Example: `  consumer verify images/debian.tar
  consumer verify --all`,
		Annotations: exits(3, 4, 5, 6),
		Args: cobra.MatchAll(checkArgs, func(_ *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("verify takes one key or image id, or --all")
			}
			return nil
		}),
		RunE: withJournal(func(ctx context.Context, c *call) error { return verifyImages(ctx, c, all) }),
	}), imageKeys, imageIDs)
	cmd.Flags().BoolVar(&all, "all", false, "every image")
	return cmd
}

// verifyImages proves images again, beside a running daemon or without one. Others may
// use the pool between one image and the next.
func verifyImages(ctx context.Context, c *call, all bool) (err error) {
	ids := make([]int64, 1)
	if !all {
		if ids[0], err = c.findKept(ctx); err != nil {
			return err
		}
	}
	if err := c.holdingPool(ctx, poolPatience, func() error { return c.openPool(ctx) }); err != nil {
		return err
	}
	l, err := c.openLocal(ctx, nil, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	if all {
		if ids, err = l.host.Verifiable(ctx); err != nil {
			return err
		}
	}
	results, err := c.verify(ctx, l.host, ids, all)
	return errors.Join(err, c.printVerified(results))
}

// findKept returns the newest active image that the argument names, or the newest of
// which something is kept.
func (c *call) findKept(ctx context.Context) (int64, error) {
	id, err := c.findActive(ctx, c.arg())
	if err != nil {
		return 0, err
	}
	img, err := c.store.Image(ctx, id)
	if err == nil && img.State.Refused() {
		err = fmt.Errorf("image %d (%s) is %s: nothing of it is kept, so there is nothing to verify", id,
			quoted(img.Key), img.State)
	}
	return id, err
}

// verified is the result for one image.
type verified struct {
	provision.Verified
	Error string `json:"error,omitempty"` // why it was not looked at
}

func (v verified) result() string {
	switch {
	case v.Error != "":
		return "NOT LOOKED AT"
	case v.Unreadable != "":
		return "UNREADABLE"
	case v.Same:
		return "as sealed"
	}
	return "DIFFERS"
}

// verify goes on after a failure with one image. Among all images it skips those removed
// or opened again meanwhile. Only the end of ctx ends it.
func (s *system) verify(ctx context.Context, h *provision.Host, ids []int64, all bool) ([]verified, error) {
	results := []verified{}
	var errs []error
	for _, id := range ids {
		v, gone := verified{}, false
		err := s.holdingPool(ctx, startPatience, func() (err error) {
			img, err := s.store.Image(ctx, id)
			if gone = err == nil && all && img.State != store.StateActive; gone || err != nil {
				return err
			}
			v.Verified, err = h.Verify(ctx, id)
			return err
		})
		if ctx.Err() != nil {
			return results, errors.Join(append(errs, ctx.Err())...)
		}
		if gone {
			continue
		}
		switch {
		case err != nil:
			v.Image, v.Same, v.Error = id, false, err.Error()
			errs = append(errs, fmt.Errorf("image %d was not looked at: %w", id, err))
		case !v.Same:
			errs = append(errs, fmt.Errorf("image %d: device %d: %w: `consumer rm --force %[1]d` and then "+
				"`consumer retry %[1]d` make it again, without what was written to its snapshots",
				id, v.Device, errVerify))
		}
		results = append(results, v)
	}
	return results, errors.Join(errs...)
}

func (o *output) printVerified(results []verified) error {
	if o.asJSON {
		return printJSON(o.out, results)
	}
	t := o.table("IMAGE", "KEY", "DEVICE", "RESULT", "SEAL RECORD", "TREE")
	for _, v := range results {
		t.row(fmt.Sprint(v.Image), dash(quoted(v.Key)), fmt.Sprint(v.Device), v.result(), dash(v.Seal), dash(v.Sealed))
	}
	err := t.flush()
	for _, v := range results {
		for _, line := range append(v.Differences, v.Unreadable, v.Error) {
			if line != "" {
				fmt.Fprintf(o.out, "image %d: %s\n", v.Image, line)
			}
		}
	}
	return err
}
