package fstree

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The types of records. A tree read from a device may have others; they stand for files
// of other types and match nothing that was written.
const (
	TypeDir     = 'd'
	TypeFile    = 'f'
	TypeSymlink = 'l'
)

// Record is one name of a tree with all its attributes.
type Record struct {
	Parent   *Record // nil at the top of the file system
	Name     string
	Type     byte
	Mode     uint16 // 0..07777
	UID, GID uint32
	Size     int64 // bytes of a file's data; 0 for other types
	Sec      int64 // time of modification, with Nsec
	Nsec     int32
	Target   string    // of a symbolic link
	First    *Record   // the first name of a file with several names; nil for that name itself
	SHA256   *[32]byte // of a file's data; nil for other types
	Xattrs   []Xattr   // sorted by name
}

// Path returns the path below the file system's root.
func (r *Record) Path() string {
	size := len(r.Name)
	for p := r.Parent; p != nil; p = p.Parent {
		size += len(p.Name) + 1
	}
	b := make([]byte, size)
	for end := size; ; end-- { // from the end: a record knows its parent only
		end -= len(r.Name)
		copy(b[end:], r.Name)
		if r = r.Parent; r == nil {
			return string(b)
		}
		b[end-1] = '/'
	}
}

// Inventory lists the names of a tree, each once. A directory comes right before its
// entries, and the entries of a directory are in the order of their bytes.
type Inventory struct {
	Records []*Record
}

// Digest returns the SHA-256 of the inventory's canonical form, as "sha256:" and 64 hex
// digits. Trees with the same digest have the same names, types, modes, owners, sizes,
// times of modification, link targets, attributes and contents, and the same names share
// a file. Access and change times, inode numbers and sizes of directories do not count.
func (v *Inventory) Digest() string {
	h := sha256.New()
	var b []byte
	for _, r := range v.Records {
		b = r.appendCanonical(b[:0])
		h.Write(b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Diff says how other differs from v, in one line for each name and in at most limit
// lines. Names are quoted.
func (v *Inventory) Diff(other *Inventory, limit int) []string {
	var lines []string
	a, b := v.Records, other.Records
	for len(lines) < limit && (len(a) > 0 || len(b) > 0) {
		switch order := compareFirst(a, b); {
		case order < 0:
			lines = append(lines, fmt.Sprintf("%q is missing", TruncateName(a[0].Path())))
			a = a[1:]
		case order > 0:
			lines = append(lines, fmt.Sprintf("%q should not be there", TruncateName(b[0].Path())))
			b = b[1:]
		default:
			if difference := a[0].difference(b[0]); difference != "" {
				lines = append(lines, fmt.Sprintf("%q: %s", TruncateName(a[0].Path()), difference))
			}
			a, b = a[1:], b[1:]
		}
	}
	return lines
}

// compareFirst compares the first records of two lists. An empty list comes last.
func compareFirst(a, b []*Record) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Compare(a[0].sortKey(), b[0].sortKey())
}

// sortKey orders paths as an inventory does: a directory comes right before its entries.
func (r *Record) sortKey() string { return strings.ReplaceAll(r.Path(), "/", "\x00") }

// modified is the time of the last modification, for people.
func (r *Record) modified() string {
	return time.Unix(r.Sec, int64(r.Nsec)).UTC().Format(time.RFC3339Nano)
}

// difference describes the first difference between two records of the same path.
func (r *Record) difference(o *Record) string {
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
		return fmt.Sprintf("target %q, should be %q", TruncateName(o.Target), TruncateName(r.Target))
	case r.Sec != o.Sec || r.Nsec != o.Nsec:
		return fmt.Sprintf("modified at %s, should be %s", o.modified(), r.modified())
	case !slices.EqualFunc(r.Xattrs, o.Xattrs,
		func(a, b Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }):
		return "other extended attributes"
	case (r.First == nil) != (o.First == nil) || r.First != nil && r.First.Path() != o.First.Path():
		return "hard links differ"
	}
	return ""
}
