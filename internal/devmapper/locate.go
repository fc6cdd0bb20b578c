package devmapper

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

const diskByID = "/dev/disk/by-id"

// locateHint says where the parts of a pool are now if they are not at the configured
// paths: the kernel renumbers disks when one is added or removed. It only reads. It
// returns "" when it finds nothing, and does not look for files.
func locateHint(cfg Config) string {
	metadata, moved := cfg.Metadata, false
	sb, err := readOwnSuperblock(cfg, metadata)
	if err != nil {
		if metadata, sb = findMetadata(cfg); metadata == "" {
			return ""
		}
		moved = true
	}
	data := cfg.Data
	if !holdsData(cfg, data, metadata, sb) {
		if data = findData(cfg, metadata, sb); data == "" {
			return ""
		}
		moved = true
	}
	if !moved {
		return ""
	}
	metadata, data = StablePath(metadata), StablePath(data)
	return fmt.Sprintf("its metadata are on %s now and its data on %s: `consumer pool locate --data %s --metadata %s`",
		metadata, data, data, metadata)
}

func findMetadata(cfg Config) (path string, sb superblock) {
	for _, path := range candidateDisks(cfg.Metadata) {
		if sb, err := readOwnSuperblock(cfg, path); err == nil {
			return path, sb
		}
	}
	return "", sb
}

func findData(cfg Config, metadata string, sb superblock) string {
	for _, path := range candidateDisks(cfg.Data) {
		if holdsData(cfg, path, metadata, sb) {
			return path
		}
	}
	return ""
}

// readOwnSuperblock reads the superblock at path. ErrForeign is returned when it is
// another pool's.
func readOwnSuperblock(cfg Config, path string) (superblock, error) {
	block, err := readFirstBlock(path)
	if err != nil {
		return superblock{}, err
	}
	sb, err := parseSuperblock(block)
	if err == nil && sb.owner != cfg.owner() {
		err = ErrForeign
	}
	return sb, err
}

// holdsData reports whether path holds the data of this metadata.
func holdsData(cfg Config, path, metadata string, sb superblock) bool {
	places, err := locateStamp(blockDevice{path: metadata, source: metadata}, sb)
	if err != nil {
		return false
	}
	f, err := openRaw(path)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = checkStamp(cfg, f, places, sb.transactionID)
	return err == nil
}

// candidateDisks lists the block devices that could be the former path. It leaves out
// device-mapper's, because they have stable names, and those whose reading may block:
// network devices and removable media.
func candidateDisks(path string) []string {
	if !strings.HasPrefix(path, "/dev/") {
		return nil
	}
	var disks []string
	for _, class := range glob("/sys/class/block/*") {
		name := filepath.Base(class)
		odd := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if slices.ContainsFunc([]string{"dm-", "nbd", "rbd", "drbd", "sr", "fd", "ram", "zram"}, odd) {
			continue
		}
		if sectors, err := strconv.ParseInt(firstLine(class+"/size"), 10, 64); err != nil || sectors == 0 {
			continue
		}
		disks = append(disks, "/dev/"+strings.ReplaceAll(name, "!", "/"))
	}
	return disks
}

// StablePath returns a name of the block device that survives renumbering by the kernel,
// if udev has made one. Other paths are returned as they are.
func StablePath(path string) string { return stableIn(diskByID, path) }

func stableIn(dir, path string) string {
	var st unix.Stat_t
	isDisk := func(path string) bool { return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK }
	if !isDisk(path) || strings.HasPrefix(path, "/dev/disk/") || strings.HasPrefix(path, dmctl.Dir) {
		return path
	}
	dev := st.Rdev
	links, err := os.ReadDir(dir) // sorted
	if err != nil {
		return path
	}
	for _, link := range links {
		if stable := filepath.Join(dir, link.Name()); isDisk(stable) && st.Rdev == dev {
			return stable
		}
	}
	return path
}
