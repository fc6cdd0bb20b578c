package main

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func poolDevicesCommand() *cobra.Command {
	var f filter
	cmd := withListing(&cobra.Command{
		Use:   "devices",
		Short: "List the thin devices that the journal has",
		Long: `Devices lists the thin devices of the pool as the journal has them, oldest first: what
each is, of which image, and how far it got. "consumer reconcile --dry-run"
compares them with the pool.`,
		Example: `  consumer pool devices
  consumer pool devices --state deleting`,
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return listDevices(ctx, c, f) }),
	}, "ids")
	addStates(&f, cmd, []store.DeviceState{
		store.DeviceReserved, store.DeviceCreated, store.DeviceFormatted, store.DeviceFilled, store.DeviceSealed,
		store.DeviceReady, store.DeviceDeleting,
	})
	f.addTo(cmd)
	return cmd
}

func listDevices(ctx context.Context, c *call, f filter) error {
	list, err := c.store.Devices(ctx)
	if err != nil {
		return err
	}
	list = pick(f, list, func(d store.Device) (string, string) { return "", string(d.State) })
	switch {
	case c.asJSON:
		return printJSON(c.out, list)
	case c.quiet:
		return printIDs(c.out, list, func(d store.Device) string { return fmt.Sprint(d.ID) })
	}
	t := c.table("DEVICE", "KIND", "STATE", "IMAGE", "ORIGIN", "SIZE", "FS UUID", "UPDATED").wideOnly("FS UUID")
	for _, d := range list {
		origin := "-"
		if d.Origin > 0 {
			origin = fmt.Sprint(d.Origin)
		}
		t.row(fmt.Sprint(d.ID), string(d.Kind), string(d.State), fmt.Sprint(d.Image), origin,
			units.BytesSize(float64(d.Bytes)), dash(d.FSUUID), ago(d.UpdatedAt))
	}
	return t.flush()
}
