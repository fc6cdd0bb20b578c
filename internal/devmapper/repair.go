package devmapper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/tool"
	"imagemanager.internal/internal/durable"
)

// ErrDamaged is returned when the pool's metadata does not pass its check.
var ErrDamaged = errors.New("thin pool metadata is damaged")

const (
	repairSuffix  = ".repair"  // metadata being rebuilt
	damagedSuffix = ".damaged" // metadata before its repair; the time in ns follows
)

var (
	thinCheck  = tool.Program{Name: "thin_check", Package: "thin-provisioning-tools"}
	thinRepair = tool.Program{Name: "thin_repair", Package: "thin-provisioning-tools"}
)

// Repaired describes the actions of RepairMetadata.
type Repaired struct {
	Rebuilt      bool   `json:"rebuilt"`       // by thin_repair
	FlagCleared  bool   `json:"flag_cleared"`  // the pool may be written to again
	Enlarged     bool   `json:"enlarged"`      // to Bytes
	Bytes        int64  `json:"bytes"`         // size of the metadata now
	DamagedSaved string `json:"damaged_saved"` // path of the damaged metadata, if it was damaged
}

// RepairMetadata makes the metadata of a detached pool usable. Damaged metadata is
// rebuilt by thin_repair, and the damaged copy is kept. The kernel's flag needs_check is
// cleared after a successful check. Metadata that may be full is enlarged to size bytes;
// size 0 leaves it. After a crash, call it again.
//
// A block device is checked, and its flag cleared, in place. It is not rebuilt or
// enlarged here: ErrDamaged and EINVAL say so. Other errors: ErrBusy if the pool is
// active, ErrUnavailable without the tools, ErrDamaged if nothing helped.
func RepairMetadata(ctx context.Context, cfg Config, size int64) (Repaired, error) {
	var r Repaired
	err := offline(cfg, func(metadata *blockDevice) error {
		err := runThinCheck(ctx, metadata.path)
		if errors.Is(err, ErrDamaged) {
			err = rebuild(ctx, cfg, metadata, size, &r)
		}
		if err != nil {
			return err
		}
		if err := clearFlag(ctx, metadata.path, &r); err != nil {
			return err
		}
		if size > metadata.size {
			if err := metadata.extend(size, reserveFile); err != nil {
				return err
			}
			r.Enlarged = true
		}
		r.Bytes = metadata.size
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("repair pool %s: %w", cfg.Name, err)
	}
	return r, nil
}

// offline calls do with the metadata's block device while nobody else uses it.
func offline(cfg Config, do func(metadata *blockDevice) error) error {
	if err := cfg.check(); err != nil {
		return err
	}
	unlock, err := lockPool(cfg)
	if err != nil {
		return err
	}
	defer unlock()
	ctl, err := openControl()
	if err != nil {
		return err
	}
	defer ctl.Close()
	_, err = ctl.Find(cfg.poolUUID())
	if err == nil {
		return fmt.Errorf("%w: pool %s is active: detach it first", ErrBusy, cfg.Name)
	}
	if !errors.Is(err, dmctl.ErrNotFound) {
		return err
	}
	metadata, err := attach(cfg.Metadata)
	if err != nil {
		return err
	}
	defer func() { metadata.close() }() // not necessarily the same one: see rebuild
	return do(&metadata)
}

// runThinCheck needs a block device: the tools use direct I/O, and not every file system
// allows that on a file.
func runThinCheck(ctx context.Context, path string, options ...string) error {
	program, err := thinCheck.Find()
	if err != nil {
		return unavailable(err)
	}
	_, err = tool.Run(ctx, program, append(options, path)...)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// clearFlag lets the pool be written to again, if needs_check prevents it.
func clearFlag(ctx context.Context, path string, r *Repaired) error {
	block, err := readFirstBlock(path)
	if err != nil {
		return err
	}
	sb, err := parseSuperblock(block)
	if err != nil || !sb.needsCheck {
		return err
	}
	if err := runThinCheck(ctx, path, "--clear-needs-check-flag"); err != nil {
		return err
	}
	r.FlagCleared = true
	return nil
}

// rebuild writes the readable part of the metadata into a new file and exchanges the two
// files in one step.
func rebuild(ctx context.Context, cfg Config, metadata *blockDevice, size int64, r *Repaired) error {
	if !metadata.loop {
		return fmt.Errorf("%w: %s is a block device: thin_repair it to another device, which becomes the pool's "+
			"metadata device", ErrDamaged, metadata.source)
	}
	fresh := cfg.Metadata + repairSuffix
	// A crash may have ended an earlier repair, before or after the exchange.
	if _, err := saveAside(cfg, fresh); err != nil {
		return err
	}
	if err := createFile(fresh, max(size, metadata.size), reserveFile); err != nil {
		return err
	}
	rebuilt, err := attach(fresh)
	if err != nil {
		return err
	}
	if err := runThinRepair(ctx, cfg, metadata.path, rebuilt.path); err != nil {
		rebuilt.close()
		return errors.Join(err, os.Remove(fresh))
	}
	if err := restoreIdentity(cfg, *metadata, rebuilt); err != nil { // syncs too
		rebuilt.close()
		return errors.Join(err, os.Remove(fresh))
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, cfg.Metadata, unix.RENAME_EXCHANGE)
	if err != nil {
		rebuilt.close()
		return fmt.Errorf("exchange %s and %s: %w", fresh, cfg.Metadata, err)
	}
	metadata.close()
	*metadata = rebuilt
	metadata.source = cfg.Metadata
	r.Rebuilt = true
	r.DamagedSaved, err = saveAside(cfg, fresh)
	return err
}

// restoreIdentity gives rebuilt metadata its owner. If the damaged metadata no longer
// tells the generation, it comes from the data's stamp. ErrForeign is returned when the
// data is not the pool's.
func restoreIdentity(cfg Config, damaged, rebuilt blockDevice) error {
	if err := setOwner(rebuilt, cfg.owner()); err != nil {
		return err
	}
	block, err := readFirstBlock(damaged.path)
	if err != nil {
		return err
	}
	if _, err := parseSuperblock(block); err == nil {
		return nil // thin_repair has kept it
	}
	sb, err := checkSuperblock(cfg, rebuilt)
	if err != nil {
		return err
	}
	places, err := locateStamp(rebuilt, sb)
	if err != nil {
		return err
	}
	data, err := attach(cfg.Data)
	if err != nil {
		return err
	}
	defer data.close()
	f, err := data.reopen(os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	stamp, ok, err := readStamp(f, places[:]...)
	if err != nil {
		return err
	}
	if err := stamp.check(ok, cfg, stamp.next); err != nil {
		return err
	}
	return changeSuperblock(rebuilt,
		func(block []byte) { binary.LittleEndian.PutUint64(block[offTransaction:], stamp.next) })
}

// runThinRepair rebuilds in to out and checks the result. If the superblock is lost, the
// tool needs its facts as options.
func runThinRepair(ctx context.Context, cfg Config, in, out string) error {
	program, err := thinRepair.Find()
	if err != nil {
		return unavailable(err)
	}
	_, err = tool.Run(ctx, program, "-i", in, "-o", out)
	if err != nil && ctx.Err() == nil {
		info, serr := os.Stat(cfg.Data)
		if serr != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), serr)
		}
		_, err = tool.Run(ctx, program, "-i", in, "-o", out, "--transaction-id", "0",
			"--data-block-size", strconv.FormatInt(cfg.BlockSize/sectorSize, 10), "--nr-data-blocks",
			strconv.FormatInt(info.Size()/cfg.BlockSize, 10))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return runThinCheck(ctx, out)
}

// saveAside renames a file so that this program no longer finds it.
func saveAside(cfg Config, path string) (string, error) {
	aside := cfg.Metadata + damagedSuffix + "-" + strconv.FormatInt(time.Now().UnixNano(), 10)
	err := durable.Rename(path, aside)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return aside, err
}
