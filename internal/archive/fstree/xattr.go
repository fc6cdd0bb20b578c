package fstree

import (
	"slices"
	"strings"
)

// Xattr is an extended attribute.
type Xattr struct {
	Name  string // with its namespace: "user.comment"
	Value []byte
}

// xattrOverhead is about how many bytes of memory an attribute takes beside its texts. An
// archive may have hundreds of thousands.
const xattrOverhead = 64

// Xattrs returns a node's extended attributes. A hard link has none of its own; ask for
// those of its Inode. The caller must not change them.
func (t *Tree) Xattrs(i ID) []Xattr { return t.xattrs[i] }

// SetXattrs replaces a node's extended attributes. The tree keeps the list.
func (t *Tree) SetXattrs(i ID, list []Xattr) {
	delete(t.xattrs, i)
	if len(list) > 0 {
		t.xattrs[i] = list
	}
	for _, x := range list {
		t.text += int64(len(x.Name) + len(x.Value) + xattrOverhead)
	}
}

// FilterXattrs removes the attributes for which keep returns false. It sorts the others
// by name, as an inventory has them.
func (t *Tree) FilterXattrs(i ID, keep func(Xattr) bool) {
	list := t.xattrs[i]
	kept := list[:0]
	for _, x := range list {
		if keep(x) {
			kept = append(kept, x)
		}
	}
	if len(kept) == 0 {
		delete(t.xattrs, i)
		return
	}
	slices.SortFunc(kept, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	t.xattrs[i] = kept
}
