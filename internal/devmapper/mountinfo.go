package devmapper

import (
	"bufio"
	"os"
	"strings"
)

// mountedIn looks for the device in the mount table of a process: the third field of
// mountinfo is its number, the fifth the place.
func mountedIn(proc string, dev uint64) string {
	f, err := os.Open(proc + "/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && fields[2] == majmin(dev) {
			return fields[4]
		}
	}
	return ""
}
