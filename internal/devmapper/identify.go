package devmapper

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// ErrUnidentified is returned when nothing tells the UUID of a pool.
var ErrUnidentified = errors.New("the pool's UUID is not known")

// Identify completes the configuration of a pool of which only the place is known, and
// reports whether it is active. Block size and UUID come from the metadata: Create,
// RepairMetadata and Open leave the UUID there. After thin_repair it is missing; it then
// comes from the dm UUID of the active pool. A given name or UUID must be the pool's.
//
// Errors: ErrNoSuperblock, ErrDamaged, ErrUnidentified, ErrForeign if name or UUID are
// not the pool's, ErrUnavailable, fs.ErrNotExist.
func Identify(cfg Config) (_ Config, active bool, err error) {
	ctl, err := openControl()
	if err != nil {
		return cfg, false, err
	}
	defer ctl.Close()
	sb, err := readSuperblock(blockDevice{path: cfg.Metadata, source: cfg.Metadata})
	if err != nil {
		return cfg, false, fmt.Errorf("identify pool: %w", err)
	}
	cfg.BlockSize = sb.blockSize
	switch {
	case cfg.UUID != "":
	case sb.owner != uuid.Nil:
		cfg.UUID = sb.owner.String()
	default:
		cfg.UUID, err = activeUUID(ctl, cfg.Name)
	}
	if err == nil {
		err = cfg.check()
	}
	if err != nil {
		return cfg, false, fmt.Errorf("identify pool on %s: %w", cfg.Metadata, err)
	}
	d, err := ctl.Find(cfg.poolUUID())
	switch {
	case errors.Is(err, dmctl.ErrNotFound):
		return cfg, false, nil
	case err == nil && d.Name != cfg.poolName():
		err = fmt.Errorf("%w: the pool is active as %s, not %s: give it its name", ErrForeign, d.Name, cfg.poolName())
	}
	return cfg, true, err
}

// IsActive reports whether the pool is active. It changes nothing, and needs neither the
// files nor an opened Pool. Errors: ErrUnavailable, and errno.
func IsActive(cfg Config) (bool, error) {
	ctl, err := openControl()
	if err != nil {
		return false, err
	}
	defer ctl.Close()
	d, err := ctl.Find(cfg.poolUUID())
	if errors.Is(err, dmctl.ErrNotFound) {
		return false, nil
	}
	return err == nil && d.Live(), err
}

// activeUUID returns the UUID of the pool that is active under a name.
func activeUUID(ctl *dmctl.Control, name string) (string, error) {
	d, err := ctl.FindName(Config{Name: name}.poolName())
	if err != nil && !errors.Is(err, dmctl.ErrNotFound) {
		return "", err
	}
	id, ok := strings.CutPrefix(strings.TrimSuffix(d.UUID, poolSuffix), uuidPrefix)
	if !ok {
		return "", fmt.Errorf("%w: its metadata are not marked, as after thin_repair, and it is not active",
			ErrUnidentified)
	}
	return id, nil
}
