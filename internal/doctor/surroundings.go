package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"imagemanager.internal/internal/devmapper/tool"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// poolFiles looks at the file system on which the pool's data file grows.
func (m *Machine) poolFiles(row store.Pool) Finding {
	const check = "pool-files"
	info, err := os.Stat(row.Data)
	switch {
	case err != nil:
		return warn(check, notRoot, "%s cannot be looked at", row.Data)
	case !info.Mode().IsRegular():
		return ok(check, "the pool is on block devices")
	}
	state, _, err := provision.FreeUnder(m.StateDir)
	at, free, errPool := provision.FreeUnder(filepath.Dir(row.Data))
	if err := errors.Join(err, errPool); err != nil {
		return warn(check, notRoot, "the space under the pool's files is not seen: %v", err)
	}
	if free < m.MinFreeDisk {
		return m.tooFull(check, filepath.Dir(row.Data), free)
	}
	where := "the file system of the state directory"
	if at != state {
		where = "another file system than the state directory"
	}
	return ok(check, "on %s; the data may grow to %s, and %s are free", where,
		size(info.Size()), size(free))
}

// rulesDirs are those of udev(7).
var rulesDirs = []string{
	"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
	"/lib/udev/rules.d",
}

// udevd is there while the daemon of udev runs.
var udevd = "/run/udev/control"

// backingFile finds the pattern of a rule that keeps udevd from looking into a loop
// device.
var backingFile = regexp.MustCompile(
	`(?m)^[^#\n]*ATTR\{loop/backing_file\}=="([^"]*)".*UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG`)

// udev looks for the rule of docs/operating.md: to udevd the loop device of a pool on
// files is a disk like any other.
func udev(data string) Finding {
	const check = "udev"
	if info, err := os.Stat(data); err != nil || !info.Mode().IsRegular() {
		return ok(check, "the pool is not on files: no rule is needed")
	}
	if _, err := os.Stat(udevd); err != nil {
		return ok(check, "udevd does not run")
	}
	for _, dir := range rulesDirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*.rules")) // the pattern is a good one
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err == nil && covered(string(text), data) {
				return ok(check, "%s keeps udevd from the pool's loop devices", file)
			}
		}
	}
	return warn(check, fmt.Sprintf(`write into /etc/udev/rules.d/59-imagemanager.rules: SUBSYSTEM=="block", `+
		`KERNEL=="loop*", ATTR{loop/backing_file}=="%s/*", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1"`,
		filepath.Dir(data)), "no rule keeps udevd from the pool's loop devices: it may take what is in an image for a "+
		"file system of the host")
}

// covered reports whether a rule in the text is about the file.
func covered(text, file string) bool {
	for _, m := range backingFile.FindAllStringSubmatch(text, -1) {
		for pattern := range strings.SplitSeq(m[1], "|") {
			begin, open := strings.CutSuffix(pattern, "*")
			if file == pattern || open && strings.HasPrefix(file, begin) {
				return true
			}
		}
	}
	return false
}

// lvm looks whether lvm2, run by hand, leaves our devices alone.
func lvm(ctx context.Context, data string) Finding {
	const check = "lvm"
	path, err := tool.Program{Name: "lvmconfig", Package: "lvm2"}.Find()
	if errors.Is(err, tool.ErrMissing) {
		return ok(check, "lvm2 is not installed")
	}
	if err != nil {
		return warn(check, notRoot, "%v", err)
	}
	settings, err := tool.Run(ctx, path, "--typeconfig", "full", "devices/global_filter", "devices/use_devicesfile")
	if err != nil {
		return warn(check, notRoot, "lvm2 does not tell its settings")
	}
	ours := []string{"/dev/mapper/cim-"}
	if info, err := os.Stat(data); err == nil && info.Mode().IsRegular() {
		ours = append(ours, "/dev/loop0")
	}
	for _, device := range ours {
		if !refused(settings, device) {
			return warn(check, `write into the section devices of /etc/lvm/lvm.conf: global_filter = `+
				`[ "r|^/dev/mapper/cim-|", "r|^/dev/loop|" ]`,
				"lvm2 looks into %s…: it may take what is in an image for a "+
					"volume group of the host", strings.TrimRight(device, "0"))
		}
	}
	return ok(check, "lvm2 does not look into the pool's devices")
}

// devicesFile is where lvm2 lists the devices it may look at.
const devicesFile = "/etc/lvm/devices/system.devices"

var filterEntry = regexp.MustCompile(`"([ar])(.)([^"]*)"`)

// refused reports whether lvm2 leaves a device alone (lvm.conf(5)): the first pattern
// that matches decides. The settings are those that lvmconfig prints.
func refused(settings, device string) bool {
	for line := range strings.Lines(settings) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if _, err := os.Stat(devicesFile); err == nil && name == "use_devicesfile" && value == "1" {
			return true // it lists none of ours, or an operator wanted it
		}
		if name != "global_filter" {
			continue
		}
		for _, m := range filterEntry.FindAllStringSubmatch(value, -1) {
			pattern, err := regexp.Compile(strings.TrimSuffix(m[3], m[2]))
			if err == nil && pattern.MatchString(device) {
				return m[1] == "r"
			}
		}
	}
	return false
}
