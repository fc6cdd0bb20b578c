package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/tool"
)

// Make makes an empty ext4 with the given UUID on a device that reads as zeros, such as a
// new thin device. It writes no zeros itself: a file system of 2 GiB takes 0.7 MiB of a
// thin pool, where mkfs.ext4 by itself takes 65.
//
// mke2fs is a child process and dies with this one, and when ctx ends; its error text is
// in the error. tool.ErrMissing is returned without mke2fs.
func Make(ctx context.Context, device, uuid string) error {
	path, err := mke2fs.Find()
	if err != nil {
		return err
	}
	version, err := newest.of(ctx, path)
	if err != nil {
		return err
	}
	size, err := sizeOf(device)
	if err != nil {
		return err
	}
	config, err := memoryFile("mke2fs.conf", mkfsConfig)
	if err != nil {
		return err
	}
	defer config.Close()
	_, err = run(ctx, config, path, append(mkfsOptions(version, uuid, size), device)...)
	return err
}

// prezeroedSince is the first e2fsprogs with an option for devices that read as zeros.
var prezeroedSince = [3]int{1, 47, 0}

// features lists every feature of the file systems. Any kernel and e2fsprogs of the last
// ten years know them. `none` comes first: nothing is inherited.
const features = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file," +
	"huge_file,dir_nlink,extra_isize,metadata_csum"

// mkfsConfig replaces the host's mke2fs.conf. It holds the settings without an option.
const mkfsConfig = `[defaults]
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	hash_alg = half_md4
	auto_64-bit_support = 0
	undo_dir = none
[fs_types]
	ext4 = {
		inode_size = 256
	}
`

// mkfsOptions returns the options of mke2fs. They name everything it would otherwise take
// from its configuration, the device's geometry or the kernel, so that a device of a size
// gets the same file system on every host, with every mke2fs. hash_seed is set so that
// equal trees make equal images.
//
// An older mke2fs leaves the inode tables to the kernel, which zeroes them at the first
// mount; MountBuild prevents this. resize_inode is left out because devices never grow.
// The block size is set because mke2fs would choose smaller blocks on a small device, and
// a symlink of more than 1 KiB does not fit into those.
func mkfsOptions(version [3]int, uuid string, size int64) []string {
	extended := "nodiscard,assume_storage_prezeroed=1"
	if !atLeast(version, prezeroedSince) {
		extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
	}
	extended += ",stride=16,stripe_width=16,root_owner=0:0,hash_seed=" + uuid
	return []string{
		"-t", filesystem, "-q", "-F", "-m", "0", "-b", "4096", "-i", "16384", "-I", "256", "-g", "32768", "-G", "16",
		"-e", "continue", "-r", "1", "-o", "Linux", "-L", "", "-J", journalSize(size), "-U", uuid, "-E", extended, "-O",
		features,
	}
}

// journalSize returns the journal's size for a file system of the given size. It is
// mke2fs's own choice since e2fsprogs 1.45, except below 128 MiB, where it is the least
// possible.
func journalSize(bytes int64) string {
	const mib, gib = 1 << 20, 1 << 30
	size := 1024 // MiB
	for _, t := range []struct {
		below int64
		mib   int
	}{{128 * mib, 4}, {gib, 16}, {2 * gib, 32}, {16 * gib, 64}, {32 * gib, 128}, {64 * gib, 256}, {128 * gib, 512}} {
		if bytes < t.below {
			size = t.mib
			break
		}
	}
	return "size=" + strconv.Itoa(size)
}

// sizeOf returns the size of a block device or file, in bytes.
func sizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// memoryFile returns a file without a name, for a child process to read by its
// descriptor.
func memoryFile(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteString(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var mke2fs = tool.Program{Name: "mke2fs", Package: "e2fsprogs"}

// Program returns the program that Make runs.
func Program() tool.Program { return mke2fs }

// run runs mke2fs without the settings in the environment, and with a configuration file
// if one is given.
func run(ctx context.Context, config *os.File, path string, args ...string) (string, error) {
	return tool.RunWith(ctx, func(cmd *exec.Cmd) {
		cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return !isInherited(v) })
		if config != nil {
			cmd.ExtraFiles = []*os.File{config}
			cmd.Env = append(cmd.Env, "MKE2FS_CONFIG=/proc/self/fd/3")
		}
	}, path, args...)
}

// isInherited reports whether mke2fs gets a variable of this process's environment: not
// those that change what e2fsprogs and its libraries do.
func isInherited(variable string) bool {
	for _, prefix := range []string{"MKE2FS_", "E2FSPROGS_", "E2FSCK_", "SOURCE_DATE_EPOCH=", "BLKID_", "TEST_IO_"} {
		if strings.HasPrefix(variable, prefix) {
			return false
		}
	}
	return true
}
