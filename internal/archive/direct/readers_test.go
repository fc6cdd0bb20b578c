package direct

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// e2fsprogs, which share no code with the kernel, read the same: debugfs finds every file
// and link of a tree, with its data, and dumpe2fs counts what is free.
func TestOtherReaders(t *testing.T) {
	d := newDisk(t, 256<<20)
	random := rand.New(rand.NewPCG(seed(t), 2))
	for n := range 3 {
		entries := randomTree(random)
		for i := range 1000 * n {
			entries = append(entries, file(fmt.Sprintf("var/%0200d", i), "x"))
		}
		b := pack(t, entries)
		d.format()
		written, err := d.write(bytes.NewReader(b), judge(t, b, archive.Options{Policy: archive.Distro}))
		check(t, err)
		d.readByDebugfs(written)
		d.countByDumpe2fs()
	}
}

// readByDebugfs compares types, sizes, owners, modes, data and targets.
func (d *disk) readByDebugfs(written *fstree.Inventory) {
	d.t.Helper()
	out := d.t.TempDir()
	var script strings.Builder
	for i, r := range written.Records {
		fmt.Fprintf(&script, "stat \"/%s\"\n", r.Path())
		if r.Type == fstree.TypeFile {
			fmt.Fprintf(&script, "dump \"/%s\" %s/%d\n", r.Path(), out, i)
		}
		if r.Type == fstree.TypeDir {
			fmt.Fprintf(&script, "htree_dump \"/%s\"\n", r.Path())
		}
	}
	commands := filepath.Join(out, "commands")
	check(d.t, os.WriteFile(commands, []byte(script.String()), 0o600))
	text := command(d.t, "debugfs", "-f", commands, d.path)
	stats := debugfsStat.FindAllStringSubmatch(text, -1)
	if len(stats) != len(written.Records) || strings.Contains(text, "rror") || strings.Contains(text, "orrupt") {
		d.t.Fatalf("debugfs shows %d of %d inodes:\n%.2000s", len(stats), len(written.Records), text)
	}
	for i, r := range written.Records {
		s := stats[i]
		size := r.Size + int64(len(r.Target))
		want := fmt.Sprintf("%s %04o %d %d", debugfsTypes[r.Type], r.Mode, int32(r.UID), int32(r.GID))
		if strings.Join(s[1:5], " ") != want ||
			r.Type != fstree.TypeDir && s[5] != strconv.FormatInt(size, 10) {
			d.t.Errorf("%q: %q, want %s %d", r.Path(), s[1:], want, size)
		}
		if r.Type == fstree.TypeFile {
			body, err := os.ReadFile(filepath.Join(out, strconv.Itoa(i)))
			check(d.t, err)
			if sha256.Sum256(body) != *r.SHA256 {
				d.t.Errorf("%q: other data", r.Path())
			}
		}
	}
}

var debugfsStat = regexp.MustCompile(`Type: (\w+) +Mode: +(\d+) +Flags: \S+\n.*\n` +
	`User: +(-?\d+) +Group: +(-?\d+) +Project: +\d+ +Size: (\d+)`)

var debugfsTypes = map[byte]string{
	fstree.TypeDir: "directory", fstree.TypeFile: "regular", fstree.TypeSymlink: "symlink",
}

// countByDumpe2fs compares the free blocks and inodes of the superblock with those of the
// groups, and these with what lies in the groups' bitmaps.
func (d *disk) countByDumpe2fs() {
	d.t.Helper()
	text := command(d.t, "dumpe2fs", d.path)
	total := map[string]int64{}
	group := map[string]int64{}
	for line := range strings.Lines(text) {
		if m := freeOfAll.FindStringSubmatch(line); m != nil {
			total[m[1]], _ = strconv.ParseInt(m[2], 10, 64)
		}
		if m := freeOfGroup.FindStringSubmatch(line); m != nil {
			for i, what := range []string{"blocks", "inodes"} {
				n, _ := strconv.ParseInt(m[1+i], 10, 64)
				group[what] += n
			}
		}
		if m := freeList.FindStringSubmatch(line); m != nil {
			group["listed "+m[1]] += count(m[2])
		}
	}
	for _, what := range []string{"blocks", "inodes"} {
		if total[what] == 0 || total[what] != group[what] || total[what] != group["listed "+what] {
			d.t.Errorf("%d free %s in all, %d in the groups, %d in their bitmaps", total[what], what, group[what],
				group["listed "+what])
		}
	}
}

var (
	freeOfAll   = regexp.MustCompile(`^Free (blocks|inodes): +(\d+)`)
	freeOfGroup = regexp.MustCompile(`^  (\d+) free blocks, (\d+) free inodes`)
	freeList    = regexp.MustCompile(`^  Free (blocks|inodes): (.*)`)
)

// count counts the numbers of a list such as "1-3, 7".
func count(list string) (n int64) {
	words := bufio.NewScanner(strings.NewReader(list))
	words.Split(bufio.ScanWords)
	for words.Scan() {
		from, to, isRange := strings.Cut(strings.TrimSuffix(words.Text(), ","), "-")
		first, _ := strconv.ParseInt(from, 10, 64)
		last := first
		if isRange {
			last, _ = strconv.ParseInt(to, 10, 64)
		}
		n += last - first + 1
	}
	return n
}
