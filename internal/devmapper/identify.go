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

// Identify completes the configuration of a pool about which nothing is known but where it lies, and tells whether it is active. Block
// size and UUID come from the metadata, where format and Open left the latter; an earlier version left only a hash of it, and a repair
// nothing: then from the dm UUID if the pool is active. A name or UUID that is given must be the pool's.
//
// Errors: ErrNoSuperblock, ErrDamaged, ErrUnidentified, ErrForeign if name or UUID are not the pool's, ErrUnavailable, fs.ErrNotExist.
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
	if cfg.UUID == "" {
		cfg.UUID, err = uuidOf(ctl, cfg.Name, sb.owner)
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

// uuidOf finds the UUID that belongs to a mark. The dm UUID of the active pool of that name comes first: a hash may look like a UUID.
func uuidOf(ctl control, name string, owner [16]byte) (string, error) {
	d, err := ctl.findName(Config{Name: name}.poolName())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	if id, ok := strings.CutPrefix(strings.TrimSuffix(d.uuid, poolSuffix), uuidPrefix); err == nil && ok {
		if c := (Config{UUID: id}); owner == c.ownerOf() || owner == c.hashedOwner() || owner == [16]byte{} {
			return id, nil
		}
	}
	text := uuid.UUID(owner).String()
	if _, ok := markable(text); !ok {
		return "", fmt.Errorf("%w: its metadata were marked by an earlier version, or repaired, and it is not active", ErrUnidentified)
	}
	return text, nil
}

// FilesystemUUID reads the UUID of the ext4 file system on a device, mounted or not. ErrNoFilesystem says that there is none.
func FilesystemUUID(path string) (string, error) {
	f, err := os.Open(path)
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
