package devmapper

import (
	"os"
	"strconv"
	"strings"
)

// mountEntry is one line of a mount table.
type mountEntry struct {
	device string // major:minor
	point  string
}

// readMounts returns the mount table of a process, such as "/proc/self". A process that
// ended since has an error.
func readMounts(proc string) ([]mountEntry, error) {
	text, err := os.ReadFile(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(text)), nil
}

// parseMountinfo reads proc_pid_mountinfo(5): the third field is the device's number, the
// fifth the mount point.
func parseMountinfo(text string) []mountEntry {
	var list []mountEntry
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 {
			list = append(list, mountEntry{device: f[2], point: decodeOctal(f[4])})
		}
	}
	return list
}

// decodeOctal decodes the kernel's escapes for space, tab, newline and backslash: a
// backslash and three octal digits (mangle_path in fs/seq_file.c).
func decodeOctal(s string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		s = after
		if len(s) >= 3 {
			if n, err := strconv.ParseUint(s[:3], 8, 8); err == nil {
				out.WriteByte(byte(n))
				s = s[3:]
				continue
			}
		}
		out.WriteByte('\\')
	}
}
