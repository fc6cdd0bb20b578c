package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The types of records. Others than the first three stand for what should not be there.
const (
	TypeDir     = 'd'
	TypeFile    = 'f'
	TypeSymlink = 'l'
)

// Record is one name of a tree with all that is promised about it.
type Record struct {
	Parent   *Record // nil at the top of the file system
	Name     string
	Type     byte
	Mode     uint16 // 0..07777
	UID, GID uint32
	Size     int64 // of a file's data; else 0
	Sec      int64 // time of modification
	Nsec     int32
	Target   string    // of a symbolic link
	First    *Record   // the first name of the same file, in order; nil for the first and only
	SHA256   *[32]byte // of a file's data; else nil
	Xattrs   []Xattr   // by name
}

// Path is the path below the file system's root.
func (r *Record) Path() string {
	size := len(r.Name)
	for p := r.Parent; p != nil; p = p.Parent {
		size += len(p.Name) + 1
	}
	b := make([]byte, size)
	for end := size; ; end-- { // from the end, as only parents are known
		end -= len(r.Name)
		copy(b[end:], r.Name)
		if r = r.Parent; r == nil {
			return string(b)
		}
		b[end-1] = '/'
	}
}

// Manifest is a tree: every name once, directories before what is in them, names by their
// bytes.
type Manifest struct {
	Records []*Record
}

// Digest is the SHA-256 of the manifest in a canonical form, "sha256:" and 64 hex digits.
// Trees with the same digest have the same names, types, modes, owners, sizes, times of
// modification, link targets, attributes and contents, and share files between the same
// names. Access and change times, inode numbers and the sizes of directories do not
// count.
func (m *Manifest) Digest() string {
	h := sha256.New()
	var b []byte
	for _, r := range m.Records {
		b = r.canonical(b[:0])
		h.Write(b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// canonical appends all fields, each text with its length before it.
func (r *Record) canonical(b []byte) []byte {
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	text(r.Path())
	b = append(b, r.Type)
	b = binary.AppendUvarint(b, uint64(r.Mode))
	b = binary.AppendUvarint(b, uint64(r.UID))
	b = binary.AppendUvarint(b, uint64(r.GID))
	b = binary.AppendUvarint(b, uint64(r.Size))
	b = binary.AppendVarint(b, r.Sec)
	b = binary.AppendUvarint(b, uint64(r.Nsec))
	text(r.Target)
	first := ""
	if r.First != nil {
		first = r.First.Path()
	}
	text(first)
	if r.SHA256 != nil {
		b = append(b, r.SHA256[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Xattrs)))
	for _, x := range r.Xattrs {
		text(x.Name)
		text(string(x.Value))
	}
	return b
}

// Diff says in at most so many lines how other differs from m, one line for each name;
// names are quoted.
func (m *Manifest) Diff(other *Manifest, most int) []string {
	var lines []string
	a, b := m.Records, other.Records
	for len(lines) < most && (len(a) > 0 || len(b) > 0) {
		switch order := compareFirst(a, b); {
		case order < 0:
			lines = append(lines, fmt.Sprintf("%q is missing", shorten(a[0].Path())))
			a = a[1:]
		case order > 0:
			lines = append(lines, fmt.Sprintf("%q should not be there", shorten(b[0].Path())))
			b = b[1:]
		default:
			if what := a[0].differs(b[0]); what != "" {
				lines = append(lines, fmt.Sprintf("%q: %s", shorten(a[0].Path()), what))
			}
			a, b = a[1:], b[1:]
		}
	}
	return lines
}

// compareFirst orders the first records of two lists; an empty list comes last.
func compareFirst(a, b []*Record) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Compare(sortable(a[0]), sortable(b[0]))
}

// sortable is a text in whose order a manifest's paths stand: a directory comes right
// before what is in it.
func sortable(r *Record) string { return strings.ReplaceAll(r.Path(), "/", "\x00") }

// differs names the first difference between two records of the same path.
func (r *Record) differs(o *Record) string {
	switch {
	case r.Type != o.Type:
		return fmt.Sprintf("type %q, should be %q", o.Type, r.Type)
	case r.Mode != o.Mode:
		return fmt.Sprintf("mode %04o, should be %04o", o.Mode, r.Mode)
	case r.UID != o.UID || r.GID != o.GID:
		return fmt.Sprintf("owner %d:%d, should be %d:%d", o.UID, o.GID, r.UID, r.GID)
	case r.Size != o.Size:
		return fmt.Sprintf("%d bytes, should be %d", o.Size, r.Size)
	case r.Type == TypeFile && *r.SHA256 != *o.SHA256:
		return fmt.Sprintf("sha256 %x, should be %x", *o.SHA256, *r.SHA256)
	case r.Target != o.Target:
		return fmt.Sprintf("target %q, should be %q", shorten(o.Target), shorten(r.Target))
	case r.Sec != o.Sec || r.Nsec != o.Nsec:
		return fmt.Sprintf("modified at %d.%09d, should be %d.%09d", o.Sec, o.Nsec, r.Sec, r.Nsec)
	case !slices.EqualFunc(r.Xattrs, o.Xattrs,
		func(a, b Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }):
		return "other extended attributes"
	case (r.First == nil) != (o.First == nil) || r.First != nil && r.First.Path() != o.First.Path():
		return "hard links differ"
	}
	return ""
}

// manifestOf is the manifest of a plan's tree with the digests of its files.
func manifestOf(ctx context.Context, plan *Plan, sums []*[32]byte, config *Record) (*Manifest, error) {
	m := &Manifest{Records: make([]*Record, 0, plan.Entries+1)}
	if config != nil {
		m.Records = append(m.Records, config)
	}
	c := &collector{tree: plan.tree, sums: sums, first: map[id]*Record{}, to: m}
	if err := c.add(ctx, plan.root, rootfsName, nil); err != nil {
		return nil, err
	}
	return m, nil
}

type collector struct {
	tree  *tree
	sums  []*[32]byte
	first map[id]*Record
	to    *Manifest
}

func (c *collector) add(ctx context.Context, i id, name string, parent *Record) error {
	inode := c.tree.inode(i)
	n := c.tree.at(inode)
	r := &Record{
		Parent: parent, Name: name, Mode: n.mode, UID: n.uid, GID: n.gid, Sec: n.sec, Nsec: n.nsec,
		Xattrs: c.tree.xattrs[inode],
	}
	switch n.kind {
	case kindSkipped:
		return nil
	case kindDir:
		r.Type = TypeDir
	case kindSymlink:
		r.Type, r.Target = TypeSymlink, n.link
	default:
		r.Type, r.Size, r.SHA256 = TypeFile, n.size, c.sums[inode]
		if n.names > 1 {
			if r.First = c.first[inode]; r.First == nil {
				c.first[inode] = r
			}
		}
	}
	c.to.Records = append(c.to.Records, r)
	if n.kind != kindDir {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	names := slices.SortedFunc(c.tree.children(i),
		func(a, b id) int { return cmp.Compare(c.tree.at(a).name, c.tree.at(b).name) })
	for _, child := range names {
		if err := c.add(ctx, child, c.tree.at(child).name, r); err != nil {
			return err
		}
	}
	return nil
}
