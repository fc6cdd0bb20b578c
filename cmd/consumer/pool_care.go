package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// cmdPoolGrow makes the pool larger while it is in use, by a running daemon too.
func cmdPoolGrow(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool grow", "", out)
	var data, metadata size
	asJSON := jsonFlag(fs)
	fs.Var(&data, "data-size", "new size of the data")
	fs.Var(&metadata, "metadata-size", "new size of the metadata, at most 16GiB")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	if data == 0 && metadata == 0 {
		return &usageError{errors.New("pool grow needs --data-size or --metadata-size")}
	}
	if err := s.lockPool(ctx, poolPatience); err != nil {
		return err
	}
	if err := s.openPool(ctx); err != nil {
		return err
	}
	if data > 0 {
		err = s.pool.GrowData(int64(data))
	}
	if err == nil && metadata > 0 {
		err = s.pool.GrowMetadata(int64(metadata))
	}
	if err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	return s.printPool(ctx, out, *asJSON)
}

// cmdPoolRepair checks the metadata of the detached pool, rebuilds what is damaged, and
// enlarges what may be full.
func cmdPoolRepair(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool repair", "", out)
	var metadata size
	asJSON := jsonFlag(fs)
	fs.Var(&metadata, "metadata-size", "enlarge the metadata to this size")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	row, err := s.detach(ctx)
	if err != nil {
		return err
	}
	r, err := devmapper.RepairMetadata(ctx, poolConfig(row), int64(metadata))
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(out, r)
	}
	t := newTable(out, "METADATA", "REBUILT", "FLAG CLEARED", "ENLARGED", "DAMAGED KEPT AS")
	t.row(units.BytesSize(float64(r.Bytes)), fmt.Sprint(r.Rebuilt), fmt.Sprint(r.FlagCleared), fmt.Sprint(r.Enlarged),
		dash(r.DamagedSaved))
	return t.flush()
}
