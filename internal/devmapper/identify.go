package devmapper

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
)

// ErrUnidentified says that nothing tells the UUID of a pool.
var ErrUnidentified = errors.New("the pool's UUID is not known")

// ErrNoFilesystem says that a device holds no ext4 file system.
var ErrNoFilesystem = errors.New("no ext4 file system")

// Identify completes the configuration of a pool about which nothing is known but where
// it lies, and tells whether it is active. Block size and UUID come from the metadata,
// where format, RepairMetadata and Open left the latter. thin_repair leaves none: then it
// comes from the dm UUID if the pool is active. A name or UUID that is given must be the
// pool's.
//
// Errors: ErrNoSuperblock, ErrDamaged, ErrUnidentified, ErrForeign if name or UUID are
// not the pool's, ErrUnavailable, fs.ErrNotExist.
func Identify(cfg Config) (_ Config, active bool, err error) {
	ctl, err := openControl()
	if err != nil {
		return cfg, false, err
	}
	defer ctl.f.Close()
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
	d, err := ctl.find(cfg.poolUUID())
	switch {
	case errors.Is(err, ErrNotFound):
		return cfg, false, nil
	case err == nil && d.name != cfg.poolName():
		err = fmt.Errorf("%w: the pool is active as %s, not %s: give it its name", ErrForeign, d.name, cfg.poolName())
	}
	return cfg, true, err
}

// activeUUID is the UUID of the pool that is active under a name.
func activeUUID(ctl control, name string) (string, error) {
	d, err := ctl.findName(Config{Name: name}.poolName())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	id, ok := strings.CutPrefix(strings.TrimSuffix(d.uuid, poolSuffix), uuidPrefix)
	if !ok {
		return "", fmt.Errorf("%w: its metadata are not marked, as after thin_repair, and it is not active",
			ErrUnidentified)
	}
	return id, nil
}

// FilesystemUUID reads the UUID of the ext4 file system on a device, mounted or not.
// ErrNoFilesystem says that there is none.
func FilesystemUUID(path string) (string, error) {
	node, err := resolve(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(node)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const superblock, magic, id = 1024, 0x38, 0x68 // Documentation/filesystems/ext4/super.rst
	var b [1024]byte
	if _, err := f.ReadAt(b[:], superblock); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if b[magic] != 0x53 || b[magic+1] != 0xef {
		return "", fmt.Errorf("%s: %w", path, ErrNoFilesystem)
	}
	return uuid.UUID(b[id : id+16]).String(), nil
}
