package devmapper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// CheckReplaceable returns nil if nothing is left of the pool to open, so that a new one
// may take its place: none of its devices is active, and its metadata is gone or holds no
// pool. It changes nothing.
//
// ErrBusy is returned while the kernel still has devices of the pool, even if their files
// were deleted: their contents can be read until they are detached. ErrHasSuperblock is
// returned when its metadata exists. Unreadable metadata may exist, so it is an error
// too.
func CheckReplaceable(cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	ctl, err := openControl()
	if err != nil {
		return err
	}
	list, err := ctl.List(cfg.uuidPrefix())
	if err := errors.Join(err, ctl.Close()); err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%w: %s and %d more devices of pool %s are active: save their contents, then "+
			"`consumer pool detach`", ErrBusy, list[0].Name, len(list)-1, cfg.Name)
	}
	used, err := HasSuperblock(cfg.Metadata)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot find out whether %s holds the pool: %w", cfg.Metadata, err)
	case used:
		return fmt.Errorf("%w: %s: `consumer pool repair` may help; if its data is lost, move it away, "+
			"or wipe it yourself", ErrHasSuperblock, cfg.Metadata)
	}
	return nil
}

// CheckEmpty returns nil if a new pool can take the file or device without any loss: the
// path does not exist, or is a file without data, or a device that begins with 16 MiB of
// zeros. Otherwise ErrForeign is returned.
func CheckEmpty(path string) error {
	const head = 16 << 20
	f, err := openRaw(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	foreign := fmt.Errorf("%w: %s is not empty: it may be part of the old pool; move it away, or empty the "+
		"device yourself (blkdiscard --zeroout)", ErrForeign, path)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		switch _, err := f.Seek(0, unix.SEEK_DATA); {
		case errors.Is(err, unix.ENXIO):
			return nil
		case err != nil:
			return fmt.Errorf("look into %s: %w", path, err)
		}
		return foreign
	}
	block := alignedBlock()
	for at := int64(0); at < head; at += metadataBlock {
		n, err := f.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if slices.ContainsFunc(block[:n], func(b byte) bool { return b != 0 }) {
			return foreign
		}
	}
	return nil
}
