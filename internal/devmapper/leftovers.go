package devmapper

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Leftovers lists things around a pool that this program does not remove by itself.
type Leftovers struct {
	Devices []string // dm devices with the pool's names and other UUIDs
	Mounts  []string // mounts of images' devices: these should be used through snapshots only
	Loops   []string // further loop devices of the pool's files
}

// All returns descriptions of all of them.
func (s Leftovers) All() []string { return slices.Concat(s.Devices, s.Mounts, s.Loops) }

// Leftovers looks for things no other method finds. Mounts are those in this process's
// mount namespace.
func (p *Pool) Leftovers() (Leftovers, error) {
	var s Leftovers
	all, err := p.ctl.List("")
	if err != nil {
		return s, err
	}
	images := map[string]string{}
	for _, d := range all {
		id, thin := p.cfg.thinID(d.UUID)
		switch {
		case thin && p.cfg.kindOf(d.Name, id) == KindImage:
			images[d.MajorMinor()] = d.Name
		case !thin && d.UUID != p.cfg.poolUUID() && p.cfg.ownsName(d.Name):
			s.Devices = append(s.Devices, fmt.Sprintf("dm device %s of another UUID %q", d.Name, d.UUID))
		}
	}
	if s.Mounts, err = leftoverMounts(images); err != nil {
		return s, err
	}
	for _, path := range []string{p.cfg.Data, p.cfg.Metadata} {
		more, err := extraLoops(path)
		if err != nil {
			return s, err
		}
		s.Loops = append(s.Loops, more...)
	}
	return s, nil
}

// leftoverMounts describes the mounts of devices, given as major:minor and name.
func leftoverMounts(devices map[string]string) ([]string, error) {
	mounts, err := readMounts("/proc/self")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range mounts {
		if name := devices[m.device]; name != "" {
			found = append(found, fmt.Sprintf("mount of %s on %s", name, m.point))
		}
	}
	return found, nil
}

// extraLoops describes the loop devices of a file, except the first.
func extraLoops(path string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, err
	}
	list, err := findLoops(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for i, f := range list {
		if i > 0 {
			names = append(names, fmt.Sprintf("loop device %s of %s", f.Name(), path))
		}
	}
	return names, closeAll(list)
}
