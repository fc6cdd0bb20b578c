package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"imagemanager.internal/internal/archive/fstree"
)

// What lies at the root of a device's file system, beside lost+found. Files of an archive
// lie below RootName, so none can bring the others.
const (
	RootName       = "rootfs"     // the tree
	ConfigName     = "image.json" // the configuration of an image in layers
	ConfigMode     = 0o644
	SealRecordName = "seal.json" // what the device is
	SealRecordMode = 0o600
	MaxSealRecord  = 16 << 10 // bytes
)

// ErrSealRecord is returned when a seal record has the wrong size, or its file is not as
// an engine makes it.
var ErrSealRecord = errors.New("seal record is not a file as it was written")

// CheckSealRecord returns ErrSealRecord for a record of a size that nobody would read.
func CheckSealRecord(record []byte) error {
	if len(record) == 0 || len(record) > MaxSealRecord {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrSealRecord, len(record), MaxSealRecord)
	}
	return nil
}

// Inventory returns the inventory of a written plan: the configuration if there is one,
// and the tree. sums are the SHA-256 of the files, by the ID of their inode. The error is
// the cause of ctx.
func (p *Plan) Inventory(ctx context.Context, sums []*[sha256.Size]byte) (*fstree.Inventory, error) {
	records := make([]*fstree.Record, 0, p.Entries+1)
	if p.Config != nil {
		sum := sha256.Sum256(p.Config)
		records = append(records, &fstree.Record{
			Name: ConfigName, Type: fstree.TypeFile, Mode: ConfigMode, Size: int64(len(p.Config)), SHA256: &sum,
		})
	}
	records, err := p.Tree.AppendRecords(ctx, records, p.Root, RootName, sums)
	if err != nil {
		return nil, err
	}
	return &fstree.Inventory{Records: records}, nil
}
