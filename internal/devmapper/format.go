package devmapper

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// format makes an empty, inactive pool on the devices and marks it with its owner.
func (p *Pool) format(metadata, data blockDevice) error {
	if err := clearMetadata(metadata, data); err != nil {
		return err
	}
	if err := metadata.reserve(); err != nil {
		return err
	}
	d, err := p.halfCreated()
	if err != nil {
		return err
	}
	// The kernel formats when it reads the table, before any resume.
	err = p.ctl.Load(d.UUID, newPoolTable(metadata, data, p.cfg.BlockSize), false)
	if err != nil {
		err = fmt.Errorf("format pool: %w", withHolders(err, metadata.dev, data.dev))
	}
	if err := errors.Join(err, p.ctl.Remove(d.UUID)); err != nil {
		return err
	}
	return setOwner(metadata, p.cfg.owner())
}

// clearMetadata makes the metadata device look new to the kernel, unless it or the data
// device has contents to lose.
func clearMetadata(metadata, data blockDevice) error {
	used, err := HasSuperblock(metadata.path)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: %s", ErrHasSuperblock, metadata.source)
	}
	for _, b := range []blockDevice{metadata, data} {
		if err := checkNoSignature(b.f, b.source, uuid.Nil); err != nil {
			return err
		}
	}
	return writeFirstBlock(metadata, alignedBlock())
}
