package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/store"
)

func cmdPoolStatus(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool status", "", out)
	asJSON := jsonFlag(fs)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.openPool(ctx); err != nil {
		return errors.Join(err, s.printLostPool(ctx, out, err, *asJSON))
	}
	return s.printPool(ctx, out, *asJSON)
}

// printLostPool shows what the journal knows of a pool without access to it.
func (s *system) printLostPool(ctx context.Context, out io.Writer, why error, asJSON bool) error {
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, map[string]any{"pool": row, "status": nil, "error": why.Error()})
	}
	t := newTable(out, "POOL", "MODE", "UUID", "BLOCK", "DATA ON", "METADATA ON")
	t.row(row.Name, "not open", row.UUID, units.BytesSize(float64(row.BlockSize)), row.Data, row.Metadata)
	return t.flush()
}

// printPool shows the pool's row and what the kernel says of it.
func (s *system) printPool(ctx context.Context, out io.Writer, asJSON bool) error {
	row, err := s.store.Pool(ctx)
	if err != nil {
		return err
	}
	st, err := s.pool.Status()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, map[string]any{"pool": row, "status": st})
	}
	percent := func(used, total int64) string {
		return fmt.Sprintf("%s of %s (%.1f %%)",
			units.BytesSize(float64(used)), units.BytesSize(float64(total)), 100*float64(used)/float64(total))
	}
	t := newTable(out, "POOL", "MODE", "DATA USED", "METADATA USED", "BLOCK", "DATA ON")
	t.row(row.Name, string(st.Mode), percent(st.UsedData, st.TotalData), percent(st.UsedMetadata, st.TotalMetadata),
		units.BytesSize(float64(row.BlockSize)), row.Data)
	return t.flush()
}

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
