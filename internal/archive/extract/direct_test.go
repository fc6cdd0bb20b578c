package extract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// noise returns bytes of which no two blocks are equal.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// largeFiles are of sizes around those from which something is done differently.
func largeFiles() map[string][]byte {
	files := map[string][]byte{}
	for i, size := range []int{
		bufferSize - 1, bufferSize, bufferSize + 1, directFrom - 1, directFrom, directFrom + 1,
		directFrom + directAlign - 1, directFrom + directAlign, directFrom + directAlign + 1, directFrom + 3*bufferSize,
	} {
		files[fmt.Sprint("var/", i)] = noise(size + i)[i:]
	}
	return files
}

func archiveOf(files map[string][]byte) []byte {
	var list []images.Entry
	for name, data := range files {
		list = append(list, images.Entry{Name: name, Body: string(data)})
	}
	return images.Tar(images.Root(list...)...)
}

// Large files do not pass through the page cache on the way to the disk, nor on the way
// back, apart from a tail; and they arrive.
func TestLargeFilesPassByTheCache(t *testing.T) {
	d := newDisk(t, 256<<20)
	dir := t.TempDir()
	root := d.mount(dir)
	files := largeFiles()
	written := extractBytes(t, archiveOf(files), archive.Strict, root)
	check(t, unix.Syncfs(int(root.Fd())))
	cachedAtMost(t, dir, written, bufferSize/directAlign)
	check(t, root.Close())
	check(t, unix.Unmount(dir, 0))
	d.clean()
	root = d.mount(dir)
	compare(t, written, root)
	cachedAtMost(t, dir, written, 0)
	for name, data := range files {
		found, err := os.ReadFile(filepath.Join(dir, archive.RootName, name))
		if err != nil || !bytes.Equal(found, data) {
			t.Errorf("%s differs, %v", name, err)
		}
	}
}

// cachedAtMost checks how many pages of each file beyond the threshold are in the cache.
func cachedAtMost(t *testing.T, dir string, tree *fstree.Inventory, most int) {
	t.Helper()
	looked := 0
	for _, rec := range tree.Records {
		if rec.Size < directFrom {
			continue
		}
		looked++
		if n := cachedPages(t, filepath.Join(dir, rec.Path()), int(rec.Size)); n > most {
			t.Errorf("%d pages of %q are cached", n, rec.Path())
		}
	}
	if looked == 0 {
		t.Error("no file is large enough")
	}
}

// cachedPages asks mincore(2).
func cachedPages(t *testing.T, path string, size int) (n int) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	defer func() { check(t, unix.Munmap(m)) }()
	pages := make([]byte, (size+directAlign-1)/directAlign)
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size),
		uintptr(unsafe.Pointer(&pages[0])))
	check(t, errnoOf(e))
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}

// A file system without direct input and output gets the same tree through the cache.
func TestDirectRefused(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	check(t, unix.Mount("none", dir, "ramfs", 0, ""))
	defer func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	if fd, err := createFile(int(root.Fd()), "x"); err != nil || openData(fd, directFrom).direct {
		t.Fatalf("ramfs takes O_DIRECT, %v: nothing is shown", err)
	} else {
		check(t, errors.Join(unix.Close(fd), os.Remove(dir+"/x")))
	}
	compare(t, extractBytes(t, archiveOf(largeFiles()), archive.Strict, root), root)
}

// What the kernel refuses to do directly while it goes on, here because of an address, is
// done through the cache from there on.
func TestDirectRefusedLater(t *testing.T) {
	disk := newDisk(t, 64<<20).detached(0)
	fd, err := createFile(int(disk.Fd()), "x")
	check(t, err)
	data := noise(3 * bufferSize)
	b := alignedBuffer(bufferSize + directAlign)
	w := openData(fd, directFrom)
	check(t, w.allocate(int64(len(data))))
	for i, shift := range []int{0, 1, 0} {
		copy(b[shift:], data[i*bufferSize:][:bufferSize])
		check(t, w.write(b[shift:][:bufferSize]))
		if w.direct != (i == 0) {
			t.Errorf("part %d: direct is %v", i, w.direct)
		}
	}
	check(t, unix.Close(fd))
	fd, err = openFile(int(disk.Fd()), "x")
	check(t, err)
	r := openData(fd, directFrom)
	var found []byte
	for i, shift := range []int{0, 1, 0} {
		n, err := r.read(b[shift:][:bufferSize])
		check(t, err)
		found = append(found, b[shift:][:n]...)
		if r.direct != (i == 0) {
			t.Errorf("part %d: direct is %v", i, r.direct)
		}
	}
	if check(t, unix.Close(fd)); !bytes.Equal(found, data) {
		t.Error("the data differ")
	}
}

// All data of a file count, whatever its inode says of their length.
func TestLengthOtherThanTold(t *testing.T) {
	root := newDisk(t, 128<<20).mount(t.TempDir())
	var b bufferPair
	for i := range b {
		b[i] = alignedBuffer(bufferSize)
	}
	for _, size := range []int{
		0, 1, 5000, bufferSize, bufferSize + 1, directFrom, directFrom + 1, directFrom + bufferSize,
	} {
		data := noise(size)
		path := filepath.Join(root.Name(), fmt.Sprint(size))
		check(t, os.WriteFile(path, data, 0o600))
		for _, told := range []int64{
			0, 1, 2, 4999, 5000, 5001, bufferSize - 1, bufferSize, bufferSize + 1,
			directFrom - 1, directFrom, directFrom + 1, 1 << 40,
		} {
			f, err := os.Open(path)
			check(t, err)
			rec := &fstree.Record{Name: path, Size: told}
			check(t, readData(t.Context(), &b, int(f.Fd()), rec))
			check(t, f.Close())
			if *rec.SHA256 != sha256.Sum256(data) {
				t.Errorf("%d bytes, told to be %d: another digest", size, told)
			}
		}
	}
}

// A file that cannot be read ends a batch: it is named, and all are closed.
func TestReadErrorInABatch(t *testing.T) {
	dir := t.TempDir()
	openTemp(t) // brings the runtime's own descriptors
	open := entries(t, "/proc/self/fd")
	for _, size := range []int64{5, directFrom} {
		var list fileBatch
		for i := range 5 {
			flags := unix.O_CREAT | unix.O_RDWR
			if i == 2 {
				flags = unix.O_CREAT | unix.O_WRONLY
			}
			fd, err := unix.Open(fmt.Sprintf("%s/%d", dir, i), flags, 0o600)
			check(t, err)
			list = append(list, openRecord{&fstree.Record{Name: fmt.Sprint(i), Size: size}, fd})
		}
		first := func(ctx context.Context, b *bufferPair) (err error) {
			defer func() { err = errors.Join(err, list.close()) }()
			return list.read(ctx, b, -1, nil)
		}
		err := runTasks(t.Context(), withOnlyCapabilities(readCaps, trustedXattrCaps), &taskStack{}, first)
		if !errors.Is(err, unix.EBADF) || err.Error() != `"2": bad file descriptor` {
			t.Errorf("%v", err)
		}
	}
	if now := entries(t, "/proc/self/fd"); now != open {
		t.Errorf("%d descriptors, %d before", now, open)
	}
}
