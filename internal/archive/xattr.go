package archive

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

const capability = "security.capability"

// xattrs judges a node's extended attributes and leaves those that the policy keeps.
func (j *judge) xattrs(i id) {
	list := j.tree.xattrs[i]
	if len(list) == 0 {
		return
	}
	kept := list[:0]
	for _, x := range list {
		reason, detail := j.judgeXattr(i, x)
		if reason == "" || !j.decide(i, reason, shorten(x.Name), "", "%s", detail) {
			kept = append(kept, x)
		}
	}
	if len(kept) == 0 {
		delete(j.tree.xattrs, i)
		return
	}
	slices.SortFunc(kept, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	j.tree.xattrs[i] = kept
	if cost := xattrCost(kept); cost > j.opts.Limits.XattrBytes {
		j.decide(i, XattrLimit, "", "", "attributes take %d bytes, the limit is %d", cost, j.opts.Limits.XattrBytes)
	}
}

// judgeXattr names the rule that an attribute breaks, if any.
func (j *judge) judgeXattr(i id, x Xattr) (Reason, string) {
	namespace, name, _ := strings.Cut(x.Name, ".")
	n := j.tree.at(i)
	switch {
	case len(x.Name) > maxName || checkText([]byte(x.Name), "") != nil:
		return XattrInvalid, fmt.Sprintf("attribute name %q", shorten(x.Name))
	case x.Name == capability && j.opts.Policy == Trusted && n.kind == kindFile && validCapability(x.Value):
		return "", ""
	case slices.Contains([]string{"security", "trusted", "system"}, namespace):
		return XattrPrivileged, fmt.Sprintf("the attribute %q", shorten(x.Name))
	case namespace != "user" || name == "" || n.kind != kindFile && n.kind != kindDir:
		return XattrInvalid, fmt.Sprintf("the attribute %q cannot be set here", shorten(x.Name))
	}
	return "", ""
}

// validCapability tells whether the kernel would take the value: revision 2 or 3 with its
// length (linux/capability.h).
func validCapability(v []byte) bool {
	if len(v) < 4 {
		return false
	}
	switch binary.LittleEndian.Uint32(v) >> 24 {
	case 2:
		return len(v) == 20
	case 3:
		return len(v) == 24
	}
	return false
}

// xattrCost is what attributes take in an ext4 attribute block, which all of a file's
// must fit: header, entries, values, each in multiples of 4 bytes, and a terminator.
// Source: Documentation/filesystems/ext4/attributes.rst.
func xattrCost(list []Xattr) int64 {
	cost := 32 + 4
	for _, x := range list {
		cost += 16 + (len(x.Name)+3)&^3 + (len(x.Value)+3)&^3
	}
	return int64(cost)
}
