package doctor

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities of the daemon: to make devices and mounts, and to write the
// owners, modes and attributes of an image's files. The unit has the same list.
var needed = []struct {
	name string
	bit  int
}{
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
	{"CAP_MKNOD", unix.CAP_MKNOD},
	{"CAP_CHOWN", unix.CAP_CHOWN},
	{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH},
	{"CAP_FOWNER", unix.CAP_FOWNER},
	{"CAP_FSETID", unix.CAP_FSETID},
	{"CAP_SETFCAP", unix.CAP_SETFCAP},
}

// capabilities looks at the effective ones of this process.
func capabilities() Finding {
	const check = "capabilities"
	if !isRoot() {
		return warn(check, notRoot+"; the daemon needs root", "this process is not root's")
	}
	have, err := strconv.ParseUint(processStatus("CapEff"), 16, 64)
	if err != nil {
		return warn(check, "mount /proc", "not looked at: /proc/self/status does not tell")
	}
	var missing []string
	for _, c := range needed {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		list := strings.Join(missing, " ")
		return fail(check, "add "+list+" to CapabilityBoundingSet= of the unit, or to the container", "root lacks %s",
			list)
	}
	return ok(check, "root has all that are needed")
}
