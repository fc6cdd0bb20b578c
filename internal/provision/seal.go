package provision

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/store"
)

// A sealed device carries a record of what it is, beside the tree. A lost journal is
// rebuilt from these records.

// The results of comparing a seal record with the journal.
const (
	sealAgrees  = "agrees"
	sealNone    = "none" // sealed by a version without records
	sealDiffers = "differs"
)

// seal saves the manifest of a filled device and records the seal.
func (h *Host) seal(ctx context.Context, t *Task, d *store.Device, tree *store.Tree, written *fstree.Inventory,
	changes []archive.Adjustment,
) (err error) {
	ctx, end := h.record.step(ctx, stepSeal)
	defer func() { end(err) }()
	return h.Manifests.saveUntil(written, func() error {
		return h.record.seal(ctx, t, d, tree, changes)
	})
}

// sealRecord returns the record of a new tree.
func (h *Host) sealRecord(ctx context.Context, img store.Image, d store.Device, tree *store.Tree) ([]byte, error) {
	pool, err := h.store.Pool(ctx)
	if err != nil {
		return nil, err
	}
	return store.NewSealRecord(pool, img, *img.Blob, d, *tree).Encode()
}

// compareSealRecord compares the record below root with the journal, and names what
// differs.
func (h *Host) compareSealRecord(ctx context.Context, root *os.File, img store.Image, d store.Device) (result string,
	differences []string, err error,
) {
	pool, err := h.store.Pool(ctx)
	if err != nil {
		return "", nil, err
	}
	record, err := extract.ReadSealRecord(root)
	if errors.Is(err, fs.ErrNotExist) {
		return sealNone, nil, nil
	}
	var found store.SealRecord
	if err == nil {
		found, err = store.ParseSealRecord(record)
	}
	if err != nil {
		//nolint:nilerr // it is the result: the device does not hold what was sealed
		return sealDiffers, []string{"seal record: " + err.Error()}, nil
	}
	archived := store.Blob{SHA256: found.ArchiveSHA256, Size: found.ArchiveSize}
	if img.Blob != nil { // without one the archive was lost since, and only the record knows
		archived = *img.Blob
	}
	for _, line := range store.NewSealRecord(pool, img, archived, d, *img.Tree).Differences(found) {
		differences = append(differences, "seal record: "+line)
	}
	if differences != nil {
		return sealDiffers, differences, nil
	}
	return sealAgrees, nil, nil
}
