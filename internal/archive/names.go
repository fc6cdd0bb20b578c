package archive

import (
	"bytes"
	"unicode/utf8"

	"imagemanager.internal/internal/archive/tarball"
)

// maxName is the longest component in ext4 and in Linux, in bytes (NAME_MAX).
const maxName = 255

// splitName appends the components of a name to parts, and refuses hostile names. Leading
// "./", doubled and trailing slashes and "." are common and dropped. The root itself has
// no components. A backslash is a byte like any other.
func splitName(parts [][]byte, name []byte, l Limits) ([][]byte, error) {
	switch {
	case len(name) == 0:
		return nil, refuse(EmptyName, "the name is empty")
	case name[0] == '/':
		return nil, refuse(AbsoluteName, "the name is absolute")
	case len(name) > l.PathBytes:
		return nil, refuse(PathTooLong, "the name has %d bytes, the limit is %d", len(name), l.PathBytes)
	}
	for part := range bytes.SplitSeq(name, []byte("/")) {
		switch {
		case len(part) == 0 || string(part) == ".":
			continue
		case string(part) == "..":
			return nil, refuse(DotdotName, `the name has a ".." component`)
		case len(part) > maxName:
			return nil, refuse(NameTooLong, "a component of the name has %d bytes, the limit is %d", len(part), maxName)
		}
		parts = append(parts, part)
	}
	if len(parts) > l.Depth {
		return nil, refuse(TooDeep, "the name has %d components, the limit is %d", len(parts), l.Depth)
	}
	return parts, checkText(name, "name")
}

// relativeName returns an entry's name without leading slashes. What has nothing else
// names the root.
func (b *treeBuilder) relativeName(h *tarball.Header) []byte {
	relative, absolute := trimSlashes(h.Name)
	if absolute {
		b.decide(h, AbsoluteName, string(h.Name), string(relative), "the name is absolute")
	}
	return relative
}

// trimSlashes makes a name relative to the root.
func trimSlashes(name []byte) (relative []byte, absolute bool) {
	relative = bytes.TrimLeft(name, "/")
	if absolute = len(relative) < len(name); absolute && len(relative) == 0 {
		return []byte("."), true
	}
	return relative, absolute
}

// checkText refuses control characters and malformed UTF-8, to protect terminals, logs
// and scripts. It accepts text beyond ASCII, as Debian has some.
func checkText(s []byte, what string) error {
	for i, c := range s {
		if c < ' ' || c == 0x7f {
			return refuse(ControlChar, "the %s has a control character, %#02x, at %d", what, c, i)
		}
	}
	if !utf8.Valid(s) {
		return refuse(InvalidUTF8, "the %s is not UTF-8: %.80q", what, s)
	}
	return nil
}

// checkTarget checks the target of a symbolic link: it must fit ext4, and must not
// deceive a reader of a listing.
func checkTarget(link []byte, l Limits) error {
	switch {
	case len(link) == 0:
		return refuse(SymlinkEmpty, "the target is empty")
	case len(link) > l.PathBytes:
		return refuse(SymlinkTooLong, "the target has %d bytes, the limit is %d", len(link), l.PathBytes)
	}
	return checkText(link, "target")
}
