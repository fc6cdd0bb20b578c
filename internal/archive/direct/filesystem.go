package direct

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	blockSize      = 4096
	inodeSize      = 256
	descriptorSize = 64
	superblockAt   = 1024 // bytes from the start of the device
	superblockSize = 1024
	rootInode      = 2
	lostFoundInode = 11
	firstInode     = 12 // that is free in a new file system
	maxLinks       = 65_000

	metadataChecksums = 0x400 // feature metadata_csum
)

// features are those of every file system that the product makes: compatible,
// incompatible, and compatible for reading only.
var features = [3]uint32{
	0x4 | 0x8 | 0x20,          // has_journal, ext_attr, dir_index
	0x2 | 0x40 | 0x80 | 0x200, // filetype, extent, 64bit, flex_bg
	// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
	0x1 | 0x2 | 0x8 | 0x20 | 0x40 | metadataChecksums,
}

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum continues the CRC32C of ext4, which has no final inversion.
func checksum(seed uint32, parts ...[]byte) uint32 {
	for _, p := range parts {
		seed = ^crc32.Update(^seed, castagnoli, p)
	}
	return seed
}

// checksumOf is a checksum that begins with a number, as those of inodes and groups do.
func checksumOf(seed, number uint32) uint32 {
	return checksum(seed, le.AppendUint32(nil, number))
}

// filesystem is an empty ext4: what its superblock and its group descriptors say.
type filesystem struct {
	device         *os.File
	first          []byte // block 0, with the superblock
	table          []byte // of group descriptors, in whole blocks
	blocks         uint64
	groups         uint32
	blocksPerGroup uint32
	inodesPerGroup uint32
	seed           uint32 // of all checksums
	hash           nameHash
	root           rootDirectory
}

// readFilesystem reads superblock, group descriptors and root directory, and checks that
// they are as mke2fs left them.
func readFilesystem(device *os.File) (*filesystem, error) {
	fs := &filesystem{device: device}
	var err error
	if fs.first, err = fs.read(0, 1); err != nil {
		return nil, err
	}
	if err := fs.parse(fs.superblock()); err != nil {
		return nil, err
	}
	if size, err := device.Seek(0, io.SeekEnd); err != nil || uint64(size)/blockSize < fs.blocks {
		return nil, cmp.Or(err, fmt.Errorf("the device has %d bytes of %d blocks: %w", size, fs.blocks, ErrNotNew))
	}
	if fs.table, err = fs.read(1, fs.tableBlocks()); err != nil {
		return nil, err
	}
	for g := range fs.groups {
		if err := fs.checkGroup(g); err != nil {
			return nil, err
		}
	}
	fs.root, err = fs.readRoot()
	return fs, err
}

// checkGroup checks the descriptor of a group, and that no inodes are in use but those
// that mke2fs makes: the root directory, lost+found and reserved ones.
func (fs *filesystem) checkGroup(g uint32) error {
	d := fs.descriptor(g)
	if d.checksum(fs.seed, g) != le.Uint16(d[descChecksum:]) {
		return fmt.Errorf("descriptor of group %d has a wrong checksum: %w", g, ErrNotNew)
	}
	used, dirs := uint32(0), uint32(0)
	if g == 0 {
		used, dirs = firstInode-1, 2
	}
	if d.count(descFreeInodes, descFreeInodesHigh) != fs.inodesPerGroup-used ||
		d.count(descDirs, descDirsHigh) != dirs {
		return fmt.Errorf("group %d has inodes in use: %w", g, ErrNotNew)
	}
	return nil
}

func (fs *filesystem) superblock() []byte { return fs.first[superblockAt:][:superblockSize] }

// parse takes the geometry from the superblock.
func (fs *filesystem) parse(s []byte) error {
	if le.Uint16(s[0x38:]) != 0xef53 {
		return fmt.Errorf("no ext4: %w", ErrNotNew)
	}
	if le.Uint32(s[0x64:])&metadataChecksums == 0 {
		return fmt.Errorf("no checksums: %w", ErrUnsupported)
	}
	if checksum(^uint32(0), s[:0x3fc]) != le.Uint32(s[0x3fc:]) {
		return fmt.Errorf("superblock has a wrong checksum: %w", ErrNotNew)
	}
	found := [3]uint32{le.Uint32(s[0x5c:]), le.Uint32(s[0x60:]), le.Uint32(s[0x64:])}
	if found != features {
		return fmt.Errorf("features %x, not %x: %w", found, features, ErrUnsupported)
	}
	fs.blocks = uint64(le.Uint32(s[4:])) | uint64(le.Uint32(s[0x150:]))<<32
	fs.blocksPerGroup, fs.inodesPerGroup = le.Uint32(s[0x20:]), le.Uint32(s[0x28:])
	if le.Uint32(s[0x18:]) != 2 || le.Uint16(s[0x58:]) != inodeSize || le.Uint16(s[0xfe:]) != descriptorSize ||
		fs.blocksPerGroup != 8*blockSize || fs.inodesPerGroup == 0 || fs.inodesPerGroup%16 != 0 ||
		fs.inodesPerGroup > 8*blockSize || le.Uint32(s[0x54:]) != lostFoundInode || s[0xfc] != halfMD4 {
		return fmt.Errorf("sizes of blocks, inodes or groups: %w", ErrUnsupported)
	}
	groups := (fs.blocks + uint64(fs.blocksPerGroup) - 1) / uint64(fs.blocksPerGroup)
	if groups == 0 || groups > 1<<22 || groups*uint64(fs.inodesPerGroup) != uint64(le.Uint32(s[0:])) {
		return fmt.Errorf("%d groups: %w", groups, ErrUnsupported)
	}
	fs.groups = uint32(groups)
	fs.seed = checksum(^uint32(0), s[0x68:0x78])
	fs.hash = newNameHash(s[0xec:0xfc], le.Uint32(s[0x160:]))
	return nil
}

// inodes returns the number of the last inode.
func (fs *filesystem) inodes() uint64 { return uint64(fs.groups) * uint64(fs.inodesPerGroup) }

func (fs *filesystem) tableBlocks() int {
	return (int(fs.groups)*descriptorSize + blockSize - 1) / blockSize
}

func (fs *filesystem) descriptor(g uint32) descriptor {
	return fs.table[int(g)*descriptorSize:][:descriptorSize]
}

// inodeSeed returns the seed of the checksums of an inode and its blocks. New inodes are
// of generation 0.
func (fs *filesystem) inodeSeed(ino uint32) uint32 {
	return checksumOf(checksumOf(fs.seed, ino), 0)
}

// read reads blocks of the device.
func (fs *filesystem) read(block uint64, n int) ([]byte, error) {
	b, err := alignedMemory(n * blockSize)
	if err != nil {
		return nil, err
	}
	defer freeMemory(b)
	if _, err := fs.device.ReadAt(b, int64(block)*blockSize); err != nil {
		return nil, err
	}
	return append([]byte(nil), b...), nil
}

// alignedMemory returns memory that begins at a page, as direct reads and writes want it.
// It is not the garbage collector's: freeMemory gives it back.
func alignedMemory(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory of %d bytes: %w", size, err)
	}
	return b, nil
}

func freeMemory(b []byte) { _ = unix.Munmap(b) } // it can only fail for memory that is not ours

// Offsets in a group descriptor; those of high halves have the suffix High.
const (
	descBlockBitmap        = 0x00
	descInodeBitmap        = 0x04
	descInodeTable         = 0x08
	descFreeBlocks         = 0x0c
	descFreeInodes         = 0x0e
	descDirs               = 0x10
	descFlags              = 0x12
	descBlockBitmapSum     = 0x18
	descInodeBitmapSum     = 0x1a
	descUnusedInodes       = 0x1c
	descChecksum           = 0x1e
	descHigh               = 0x20 // from here on the high halves, in the same order
	descUnusedInodesHigh   = 0x32
	descFreeBlocksHigh     = 0x2c
	descFreeInodesHigh     = 0x2e
	descDirsHigh           = 0x30
	descBlockBitmapSumHigh = 0x38
	descInodeBitmapSumHigh = 0x3a

	inodesUninitialised = 1 // flags
	blocksUninitialised = 2
)

// descriptor describes a group of blocks.
type descriptor []byte

func (d descriptor) block(at int) uint64 {
	return uint64(le.Uint32(d[at:])) | uint64(le.Uint32(d[descHigh+at:]))<<32
}

func (d descriptor) count(low, high int) uint32 {
	return uint32(le.Uint16(d[low:])) | uint32(le.Uint16(d[high:]))<<16
}

func (d descriptor) setCount(low, high int, n uint32) {
	le.PutUint16(d[low:], uint16(n))
	le.PutUint16(d[high:], uint16(n>>16))
}

func (d descriptor) has(flag uint16) bool { return le.Uint16(d[descFlags:])&flag != 0 }

func (d descriptor) clear(flag uint16) { le.PutUint16(d[descFlags:], le.Uint16(d[descFlags:])&^flag) }

// checksum returns the checksum that the descriptor of a group should have.
func (d descriptor) checksum(seed, group uint32) uint16 {
	return uint16(checksum(checksumOf(seed, group), d[:descChecksum], []byte{0, 0}, d[descChecksum+2:]))
}

var errBitmap = errors.New("its bitmap and its number of free blocks disagree")

// freeMap returns the bitmap of a group's blocks in a new file system: a set bit is a
// used block.
func (fs *filesystem) freeMap(g uint32) ([]byte, error) {
	d := fs.descriptor(g)
	var used []byte
	if d.has(blocksUninitialised) {
		used = fs.initialMap(g)
	} else {
		var err error
		if used, err = fs.read(d.block(descBlockBitmap), 1); err != nil {
			return nil, err
		}
		if checksum(fs.seed, used) != d.count(descBlockBitmapSum, descBlockBitmapSumHigh) {
			return nil, fmt.Errorf("bitmap of group %d has a wrong checksum: %w", g, ErrNotNew)
		}
	}
	if countZeros(used) != d.count(descFreeBlocks, descFreeBlocksHigh) {
		return nil, fmt.Errorf("group %d: %w: %w", g, errBitmap, ErrNotNew)
	}
	return used, nil
}

// initialMap returns the bitmap of a group that has none on the device yet. In use are
// the copies of superblock and descriptors, the group's own tables if they lie in it, and
// the bits past the end of the device. Source: ext4_init_block_bitmap.
func (fs *filesystem) initialMap(g uint32) []byte {
	used := make([]byte, blockSize)
	first := uint64(g) * uint64(fs.blocksPerGroup)
	mark := func(block, n uint64) {
		for b := max(block, first); b < min(block+n, first+uint64(fs.blocksPerGroup)); b++ {
			used[(b-first)/8] |= 1 << ((b - first) % 8)
		}
	}
	if hasSuperblock(g) {
		mark(first, uint64(1+fs.tableBlocks()))
	}
	d := fs.descriptor(g)
	mark(d.block(descBlockBitmap), 1)
	mark(d.block(descInodeBitmap), 1)
	mark(d.block(descInodeTable), uint64(fs.inodesPerGroup*inodeSize/blockSize))
	mark(fs.blocks, uint64(fs.blocksPerGroup))
	return used
}

// hasSuperblock reports whether a group has copies of the superblock and the descriptors:
// 0, 1, and the powers of 3, 5 and 7.
func hasSuperblock(g uint32) bool {
	if g <= 1 {
		return true
	}
	for _, base := range []uint32{3, 5, 7} {
		power := base
		for power < g {
			power *= base
		}
		if power == g {
			return true
		}
	}
	return false
}
