package direct

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

// grown is a tree with everything that the kernel changes in other ways: a directory of
// full leaves, one of one block, attributes in the inode, in a block and in both, and a
// file with blocks of extents, if the device is fragmented.
func grown() []entry {
	long, short := strings.Repeat("v", 300), "v"
	list := []entry{
		dir("usr/few"), dir("usr/many"), file("usr/large", strings.Repeat("0123456789abcdef", 600<<6)),
		file("usr/inode", "x").with("user.short", short), file("usr/block", "x").with("user.long", long),
		file("usr/both", "x").with("user.long", long).with("user.short", short),
		dir("usr/attributes").with("user.long", long).with("user.short", short),
		symlink("usr/long-link", strings.Repeat("t/", 100)+"t"), symlink("usr/link", "few"),
	}
	for i := range 3000 {
		list = append(list, file(fmt.Sprintf("usr/many/%d-%s", i, strings.Repeat("n", i%180)), fmt.Sprint(i)))
	}
	return list
}

// The kernel takes the file system for its own: what it changes is there, and e2fsck
// finds nothing afterwards; and nothing is left of what it removes.
func TestWritableAfterwards(t *testing.T) {
	for _, run := range []int64{0, 7} {
		d := newDisk(t, 256<<20)
		if run > 0 {
			d.fragment(3000, run)
		}
		var fresh, empty unix.Statfs_t
		d.mounted(func(dir string) { check(t, unix.Statfs(dir, &fresh)) })
		d.become("the tree", grown())
		d.mounted(func(dir string) { changeNames(t, dir+"/rootfs/usr/many") })
		d.mounted(func(dir string) { changeAttributes(t, dir+"/rootfs/usr") })
		d.mounted(func(dir string) { changeData(t, dir+"/rootfs/usr") })
		d.mounted(func(dir string) { changeData(t, dir+"/rootfs/usr") })
		d.mounted(func(dir string) {
			for _, name := range []string{archive.RootName, archive.SealRecordName} {
				check(t, os.RemoveAll(filepath.Join(dir, name)))
			}
			unix.Sync()
			check(t, unix.Statfs(dir, &empty))
		})
		if empty.Bfree != fresh.Bfree || empty.Ffree != fresh.Ffree {
			t.Errorf("%d blocks and %d inodes are free, before the tree %d and %d",
				empty.Bfree, empty.Ffree, fresh.Bfree, fresh.Ffree)
		}
	}
}

// changeNames adds names to a directory of full leaves, and renames and removes others.
func changeNames(t *testing.T, dir string) {
	t.Helper()
	old, err := os.ReadDir(dir)
	check(t, err)
	want := map[string]bool{}
	for i, e := range old {
		path := filepath.Join(dir, e.Name())
		switch i % 4 {
		case 0:
			check(t, os.Remove(path))
		case 1:
			check(t, os.Rename(path, path+"-renamed"))
			want[e.Name()+"-renamed"] = true
		default:
			want[e.Name()] = true
		}
	}
	for i := range 5000 {
		name := fmt.Sprintf("new-%d-%s", i, strings.Repeat("m", i%200))
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: %v", name, err)
		}
		if i%100 == 0 {
			check(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		} else {
			check(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		}
		want[name] = true
	}
	now, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range now {
		if !want[e.Name()] {
			t.Errorf("%q is there, or twice", e.Name())
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		t.Errorf("%d names are gone", len(want))
	}
}

// changeAttributes sets, replaces and removes attributes where they are in the inode, in
// a block, and in both.
func changeAttributes(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"inode", "block", "both", "attributes", "few", "large"} {
		path := filepath.Join(dir, name)
		for _, size := range []int{1, 60, 500, 0, 3000} {
			for _, attribute := range []string{"user.short", "user.new", "trusted.new"} {
				value := bytes.Repeat([]byte("w"), size)
				check(t, unix.Setxattr(path, attribute, value, 0))
				got := make([]byte, 4096)
				n, err := unix.Getxattr(path, attribute, got)
				check(t, err)
				if !bytes.Equal(got[:n], value) {
					t.Errorf("%s of %s has %d bytes, want %d", attribute, name, n, size)
				}
				if size > 2000 {
					check(t, unix.Removexattr(path, attribute))
				}
			}
		}
	}
	long := make([]byte, 4096)
	for _, name := range []string{"block", "both", "attributes"} {
		if n, err := unix.Getxattr(filepath.Join(dir, name), "user.long", long); err != nil || n != 300 {
			t.Errorf("user.long of %s: %d bytes, %v", name, n, err)
		}
	}
	check(t, unix.Removexattr(filepath.Join(dir, "block"), "user.long"))
}

// changeData overwrites, appends, punches and truncates.
func changeData(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"large", "inode", "both"} {
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		info, err := f.Stat()
		check(t, err)
		want := make([]byte, info.Size()/2+1<<20)
		_, err = f.ReadAt(want[:info.Size()/2], 0)
		check(t, err)
		copy(want[info.Size()/3:], "overwritten")
		check(t, f.Truncate(info.Size()/2))
		_, err = f.WriteAt([]byte("overwritten"), info.Size()/3)
		check(t, err)
		_, err = f.WriteAt(want[info.Size()/2:], info.Size()/2)
		check(t, err)
		const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		check(t, unix.Fallocate(int(f.Fd()), punch, info.Size()/4, 40_000))
		clear(want[min(len(want), int(info.Size()/4)):min(len(want), int(info.Size()/4)+40_000)])
		check(t, errors.Join(f.Sync(), f.Close()))
		got, err := os.ReadFile(path)
		check(t, err)
		if !bytes.HasPrefix(want, got[:len(got)-1]) || len(got) < 1<<20 {
			t.Errorf("%s has %d bytes, others than were written", name, len(got))
		}
	}
}

// The file system grows, mounted or not, and the tree stays as it is.
func TestGrowsAfterwards(t *testing.T) {
	for _, online := range []bool{false, true} {
		d := newDisk(t, 128<<20)
		before := d.become("the tree", grown())
		check(t, d.file.Truncate(2*d.size))
		command(t, "losetup", "-c", d.path)
		if online {
			needResource(t)
			d.mounted(func(string) { command(t, "resize2fs", d.path) })
		} else {
			command(t, "resize2fs", "-f", d.path)
		}
		d.clean()
		mustLookLike(t, "the tree afterwards", d.look(), before)
		var st unix.Statfs_t
		d.mounted(func(dir string) {
			check(t, unix.Statfs(dir, &st))
			changeNames(t, dir+"/rootfs/usr/many")
		})
		if size := int64(st.Blocks) * blockSize; size < 230<<20 {
			t.Errorf("it has %d MiB", size>>20)
		}
	}
}

// needResource skips the test without the privilege that growing a mounted file system
// takes. Guests have it.
func needResource(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	check(t, unix.Capget(&header, &sets[0]))
	if sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		if os.Getenv("CIM_REQUIRE_DM") != "" {
			t.Fatal("needs CAP_SYS_RESOURCE")
		}
		t.Skip("needs CAP_SYS_RESOURCE, to grow a mounted file system")
	}
}
