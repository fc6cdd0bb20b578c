package devmapper

import (
	"errors"
	"fmt"
	"os"
)

// checkBeforeOpen checks metadata and data before Open changes anything. If the pool may
// be unfinished and has no devices yet, the data needs no stamp, but must hold nothing
// else; unfinished reports this.
func (p *Pool) checkBeforeOpen(metadata, data blockDevice, may bool) (sb superblock, unfinished bool, err error) {
	if !may {
		sb, err = p.checkDevices(metadata)
		return sb, false, err
	}
	if sb, err = checkSuperblock(p.cfg, metadata); err != nil {
		return sb, false, err
	}
	switch unfinished, err := isNew(sb, metadata); {
	case err != nil:
		return sb, false, err
	case !unfinished:
		return p.checkBeforeOpen(metadata, data, false)
	}
	return sb, true, checkNoSignature(data.f, data.source, p.cfg.owner())
}

// checkDevices makes sure that metadata and data belong to this pool and to each other.
// It only reads. An active pool changes its metadata meanwhile, so an error is checked
// again. ErrForeign is returned when something does not belong, ErrDamaged when the
// metadata cannot be read.
func (p *Pool) checkDevices(metadata blockDevice) (sb superblock, err error) {
	transient := func(err error) bool { return errors.Is(err, errMalformed) || errors.Is(err, ErrForeign) }
	err = retryWhile(tornTimeout, transient, func() error {
		if sb, err = checkSuperblock(p.cfg, metadata); err != nil {
			return err
		}
		return p.checkData(sb, metadata)
	})
	return sb, err
}

func (p *Pool) checkData(sb superblock, metadata blockDevice) error {
	var err error
	p.stampAt, err = locateStamp(metadata, sb)
	switch {
	case errors.Is(err, errNotMapped):
		return fmt.Errorf("%w: the pool on %s has no stamp on its data: an early version of this program made it, "+
			"or did not finish", ErrForeign, metadata.source)
	case errors.Is(err, errMalformed):
		return fmt.Errorf("%w: run `consumer pool repair`: %s: %w", ErrDamaged, metadata.source, err)
	case err != nil:
		return err
	}
	f, err := p.data.reopen(os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := checkStamp(p.cfg, f, p.stampAt, sb.transactionID); err != nil {
		return err
	}
	if sb.transactionID < p.cfg.Generation {
		return fmt.Errorf("%w: metadata and data of the pool, on %s and %s, are a copy from an earlier time "+
			"(generation %d) than the journal is (%d): bring the newer ones back, or move the database away "+
			"and rebuild it from this copy by `consumer recover`",
			ErrForeign, p.cfg.Metadata, p.cfg.Data, sb.transactionID, p.cfg.Generation)
	}
	return nil
}

// checkStamp reads the stamp of the data at its places. ErrForeign is returned unless the
// data belongs to metadata of this generation.
func checkStamp(cfg Config, data *os.File, places [2]int64, generation uint64) (dataStamp, error) {
	stamp, ok, err := readStamp(data, places[:]...)
	if err != nil {
		return stamp, fmt.Errorf("%s: %w", cfg.Data, err)
	}
	return stamp, stamp.check(ok, cfg, generation)
}

// check returns ErrForeign, with the reason, unless data with this stamp belongs to the
// configured pool with metadata of this generation. found is false for data without a
// stamp.
func (s dataStamp) check(found bool, cfg Config, generation uint64) error {
	const remedy = "nothing was written; put the right ones in place"
	switch {
	case !found:
		return fmt.Errorf("%w: %s does not hold this pool's data: it is another device or file, or was "+
			"overwritten (%s)", ErrForeign, cfg.Data, remedy)
	case s.owner != cfg.owner():
		return fmt.Errorf("%w: %s holds the data of another pool, %s (%s)", ErrForeign, cfg.Data, s.owner, remedy)
	case generation < s.generation:
		return fmt.Errorf("%w: the metadata on %s are a copy from an earlier time (generation %d) "+
			"than the data on %s (%d; %s)",
			ErrForeign, cfg.Metadata, generation, cfg.Data, s.generation, remedy)
	case generation != s.generation && generation != s.next:
		return fmt.Errorf("%w: the data on %s are a copy from an earlier time (generation %d) "+
			"than the metadata on %s (%d; %s)",
			ErrForeign, cfg.Data, s.generation, cfg.Metadata, generation, remedy)
	}
	return nil
}

// isNew reports whether a pool was formatted and never used, and so has nothing on other
// data.
func isNew(sb superblock, metadata blockDevice) (bool, error) {
	f, err := openDirect(metadata.path, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	thins, err := readThins(f, 0)
	return err == nil && sb.transactionID == 0 && len(withoutStamp(thins)) == 0, err
}

// withoutStamp returns the thin devices without the stamp's.
func withoutStamp(thins []Thin) []Thin {
	if len(thins) > 0 && thins[0].ID == stampID { // the list is in the order of the ids
		return thins[1:]
	}
	return thins
}
