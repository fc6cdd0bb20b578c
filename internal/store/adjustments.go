package store

import (
	"context"
	"fmt"
)

// Adjustment is a change that the policy made to an entry of an image.
type Adjustment struct {
	Rule  string `json:"rule"`
	Entry string `json:"entry"`
	From  string `json:"from"`
	To    string `json:"to"` // empty for what was left out
}

const (
	adjustmentInsert = `INSERT INTO adjustments (device_id, n, rule, entry, was, became) VALUES (?, ?, ?, ?, ?, ?)`
	adjustmentsOf    = `SELECT rule, entry, was, became FROM adjustments WHERE device_id = ? ORDER BY n`
)

// Seal records that the tree on a device was read back, and what the policy had changed
// in it. From here on the device is rolled forward.
func (s *Store) Seal(ctx context.Context, a Attempt, d Device, t Tree, changes []Adjustment) (Device, error) {
	d.State = DeviceSealed
	e := a.event(EventStep, s.now(), Detail{Device: &d, Tree: &t})
	err := s.write(ctx, e.label, func(tx transaction) error {
		if _, err := record(ctx, tx, e); err != nil {
			return err
		}
		return insertAdjustments(ctx, tx, d.ID, changes)
	})
	return d, err
}

func insertAdjustments(ctx context.Context, tx transaction, device int64, changes []Adjustment) error {
	for n, c := range changes {
		if _, err := tx.ExecContext(ctx, adjustmentInsert, device, n, c.Rule, c.Entry, c.From, c.To); err != nil {
			return fmt.Errorf("insert adjustment of device %d: %w", device, err)
		}
	}
	return nil
}

// Adjustments returns what the policy changed in the tree on a device, in the order of
// the archive. There may be fewer than Tree.Changed says: an archive has a limit of those
// that are described, and a rebuilt journal has none.
func (s *Store) Adjustments(ctx context.Context, device int64) ([]Adjustment, error) {
	return queryAll(ctx, s.readDB, "adjustments", scanAdjustment, adjustmentsOf, device)
}

func scanAdjustment(row scanner) (c Adjustment, err error) {
	if err = row.Scan(&c.Rule, &c.Entry, &c.From, &c.To); err != nil {
		err = fmt.Errorf("read adjustment: %w", err)
	}
	return c, err
}
