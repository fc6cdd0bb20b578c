package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// isFirst reports whether there is no database yet. Then it looks whether the pool can be
// made, while there is nothing to clean up.
func (m poolMaker) isFirst() (bool, error) {
	switch _, err := os.Stat(databasePath(m.cfg.StateDir)); {
	case err == nil:
		return false, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, m.cfg.withoutDatabase(err)
	}
	if _, err := m.newPool(); err != nil {
		return false, err
	}
	return true, devmapper.Probe()
}

// forgetPool removes the database of a pool that could not be made. If there is something
// of the pool, the database stays.
func (m poolMaker) forgetPool(ctx context.Context) error {
	row, err := m.store.Pool(ctx)
	if err == nil {
		var begun bool
		if begun, err = devmapper.HasSuperblock(row.Metadata); begun {
			return nil
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.store.Close(); err != nil {
		return err
	}
	return removeDatabase(databasePath(m.cfg.StateDir))
}

// asked returns the row as the options given want it. What is not given stays.
func (m poolMaker) asked(row store.Pool) (store.Pool, error) {
	if m.given("name") {
		row.Name = m.name
	}
	if m.given("block-size") {
		row.BlockSize = int64(m.blockSize)
	}
	data, metadata, err := m.cfg.poolPaths(m.data, m.metadata)
	if err == nil && m.data != "" {
		row.Data, row.Metadata = devmapper.StablePath(data), devmapper.StablePath(metadata)
	}
	return row, err
}

// openSame opens a pool that is there, if it is the one that the options ask for.
func (m poolMaker) openSame(ctx context.Context, row store.Pool) error {
	asked, err := m.asked(row)
	if err != nil {
		return err
	}
	if asked != row {
		return &usageError{fmt.Errorf("the pool is there already, with --name %s --data %s --metadata %s "+
			"--block-size %s: leave out what is other than that", row.Name, row.Data, row.Metadata,
			units.BytesSize(float64(row.BlockSize)))}
	}
	if err := m.openPool(ctx); err != nil {
		return err
	}
	st, err := m.pool.Status()
	if err != nil {
		return err
	}
	if more := int64(m.dataSize) - st.TotalData; m.given("data-size") && more >= row.BlockSize {
		return &usageError{fmt.Errorf("the pool is there already, with %s of data: `consumer pool grow "+
			"--data-size %s` enlarges it", units.BytesSize(float64(st.TotalData)), &m.dataSize)}
	}
	return nil
}

// removeUnused removes the files just made for a pool, unless there is something of the
// pool.
func removeUnused(row store.Pool, made []string) error {
	if begun, err := devmapper.HasSuperblock(row.Metadata); begun || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, path := range made {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
