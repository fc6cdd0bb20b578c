package archive

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// fileCapability is the attribute with a program's capabilities.
const fileCapability = "security.capability"

// judgeXattrs judges a node's extended attributes. It removes those stripped by the
// policy.
func (j *judge) judgeXattrs(i fstree.ID) {
	if len(j.tree.Xattrs(i)) == 0 {
		return
	}
	j.tree.FilterXattrs(i, func(x fstree.Xattr) bool {
		reason, detail := j.brokenXattrRule(i, x)
		return reason == "" || !j.decide(i, reason, fstree.TruncateName(x.Name), "", "%s", detail)
	})
	kept := j.tree.Xattrs(i)
	if cost := xattrCost(kept); len(kept) > 0 && cost > j.opts.Limits.XattrBytes {
		j.decide(i, XattrLimit, "", "", "attributes take %d bytes, the limit is %d", cost, j.opts.Limits.XattrBytes)
	}
}

// brokenXattrRule returns the rule broken by an attribute, or an empty reason.
func (j *judge) brokenXattrRule(i fstree.ID, x fstree.Xattr) (reason Reason, detail string) {
	namespace, name, _ := strings.Cut(x.Name, ".")
	n := j.tree.At(i)
	switch {
	case len(x.Name) > maxName || checkText([]byte(x.Name), "") != nil:
		return XattrInvalid, fmt.Sprintf("attribute name %q", fstree.TruncateName(x.Name))
	case x.Name == fileCapability && j.opts.Policy == Trusted && n.Kind == fstree.KindFile &&
		validCapability(x.Value):
		return "", ""
	case slices.Contains([]string{"security", "trusted", "system"}, namespace):
		return XattrPrivileged, fmt.Sprintf("the attribute %q", fstree.TruncateName(x.Name))
	case namespace != "user" || name == "" || n.Kind != fstree.KindFile && n.Kind != fstree.KindDir:
		return XattrInvalid, fmt.Sprintf("the attribute %q cannot be set here", fstree.TruncateName(x.Name))
	}
	return "", ""
}

// validCapability reports whether the kernel would accept the value: revision 2 or 3 with
// its length (linux/capability.h).
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

// xattrCost returns the size of attributes in an ext4 attribute block: header, entries
// and values, each in multiples of 4 bytes, and a terminator. All attributes of a file
// must fit one block. Source: Documentation/filesystems/ext4/attributes.rst.
func xattrCost(list []fstree.Xattr) int64 {
	cost := 32 + 4
	for _, x := range list {
		cost += 16 + (len(x.Name)+3)&^3 + (len(x.Value)+3)&^3
	}
	return int64(cost)
}
