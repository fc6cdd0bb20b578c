package devmapper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// lvm runs a command of lvm2 with these settings of its section devices, and returns what
// it prints. It keeps no backups: its /etc is not ours.
func lvm(t *testing.T, devices string, args ...string) string {
	t.Helper()
	args = append(args, "--config", "backup{backup=0 archive=0} devices{"+devices+"}")
	out, err := exec.Command("lvm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("lvm %v: %v: %s", args, err, out)
	}
	return string(out)
}

// makeVolumeGroup makes a volume group with one volume on a block device, not active.
func makeVolumeGroup(t *testing.T, name, path string) {
	t.Helper()
	only := `global_filter=["a|^` + path + `$|", "r|.*|"]`
	lvm(t, only, "pvcreate", "--yes", path)
	lvm(t, only, "vgcreate", name, path)
	lvm(t, only, "lvcreate", "--yes", "--wipesignatures", "n", "--zero", "n", "--name", "volume", "--extents", "2",
		name)
	lvm(t, only, "vgchange", "--activate", "n", name)
}

// isActive reports whether a volume group's volume is active.
func isActive(group string) bool {
	_, err := os.Stat(dmctl.Dir + group + "-volume")
	return err == nil
}

// links returns the links below /dev/disk to the devices of these kernel's names, but for
// those that say nothing of contents.
func links(t *testing.T, names ...string) (found []string) {
	t.Helper()
	for _, link := range glob("/dev/disk/*/*") {
		target, err := os.Readlink(link)
		check(t, err)
		if slices.Contains(names, filepath.Base(target)) && !strings.HasPrefix(link, "/dev/disk/by-diskseq/") {
			found = append(found, link)
		}
	}
	return found
}

// linksTo returns the links to the pool's devices and what they lie on.
func linksTo(t *testing.T, p *Pool) []string {
	t.Helper()
	devices, err := p.ctl.List(p.cfg.uuidPrefix())
	check(t, err)
	var names []string
	for _, d := range devices {
		names = append(names, fmt.Sprintf("dm-%d", unix.Minor(d.Number)))
	}
	loops, err := findLoops(p.cfg.Data)
	check(t, err)
	for _, l := range loops {
		names = append(names, filepath.Base(l.Name()))
	}
	check(t, closeAll(loops))
	return links(t, names...)
}

// documented returns the first line of the operators' page that matches.
func documented(t *testing.T, pattern string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operating.md")
	check(t, err)
	line := regexp.MustCompile("(?m)^.*" + pattern + ".*$").Find(text)
	if line == nil {
		t.Fatalf("docs/operating.md has no line with %s", pattern)
	}
	return string(line)
}

// A file system and a volume group on thin devices: udevd makes no links to them and has
// lvm2 take no volumes from them, as it has from a loop device that is not ours.
func TestContentsAreNothingToUdevd(t *testing.T) {
	udevadm := needUdevd(t)
	p, _ := newPool(t)
	check(t, MakeFilesystem(t.Context(), newImage(t, p), "11111111-2222-3333-4444-555555555555"))
	check(t, p.CreateThin(2))
	path, err := p.Activate(2, KindSnapshot, deviceSize, false)
	check(t, err)
	makeVolumeGroup(t, "ours", path)
	file := filepath.Join(t.TempDir(), "theirs.img")
	check(t, os.WriteFile(file, nil, 0o600))
	check(t, os.Truncate(file, 64*mib))
	loop, err := attachLoop(file)
	check(t, err)
	makeVolumeGroup(t, "theirs", loop.Name())
	loop.Close()
	check(t, p.Deactivate(1))
	check(t, p.Deactivate(2))
	udevadm("settle", "--timeout=20")
	for id := ID(1); id <= 2; id++ {
		_, err = p.Activate(id, KindSnapshot, deviceSize, false)
		check(t, err)
	}
	loop, err = attachLoop(file)
	check(t, err)
	defer loop.Close()
	udevadm("settle", "--timeout=20")
	if !isActive("theirs") {
		t.Error("lvm2 takes nothing at all: this test proves nothing")
	}
	if isActive("ours") {
		t.Error("lvm2 has taken a volume from a thin device")
	}
	udevadm("trigger", "--action=change", "--sysname-match=dm-*") // as when udevd is started again
	udevadm("settle", "--timeout=20")
	if found := linksTo(t, p); len(found) > 0 {
		t.Errorf("links to what is on thin devices: %q", found)
	}
	lvm(t, "", "vgremove", "--yes", "theirs")
}

// By hand lvm2 looks at every device, also at ours; with the settings of the operators'
// page it does not.
func TestFilterOfLVMBesideUdevd(t *testing.T) {
	needUdevd(t)
	p, _ := newPool(t)
	fill(t, newImage(t, p), p.cfg.BlockSize) // so that the volume group is not in the pool's first block
	check(t, p.CreateThin(2))
	path, err := p.Activate(2, KindSnapshot, deviceSize, false)
	check(t, err)
	makeVolumeGroup(t, "ours", path)
	for _, filter := range []string{"", documented(t, `global_filter =`)} {
		lvm(t, filter, "pvscan", "--cache")
		lvm(t, filter, "vgchange", "--activate", "y")
		volumes := lvm(t, filter, "lvs")
		if taken := isActive("ours"); taken != (filter == "") || strings.Contains(volumes, "ours") != taken {
			t.Errorf("with %q: taken %t, volumes %s", filter, taken, volumes)
		}
		lvm(t, "", "vgchange", "--activate", "n", "ours")
	}
}

// A loop device of the pool may look like a file system, or a volume group, by what is in
// its first or last blocks. With the rule of the operators' page udevd does not look.
func TestRuleForLoopsBesideUdevd(t *testing.T) {
	udevadm := needUdevd(t)
	rules := "/run/udev/rules.d/59-imagemanager.rules"
	check(t, os.MkdirAll(filepath.Dir(rules), 0o755))
	t.Cleanup(func() { _ = os.Remove(rules); udevadm("control", "--reload") })
	rule := documented(t, `loop/backing_file`)
	for _, with := range []bool{false, true} {
		p, cfg := newPool(t)
		check(t, p.Close())
		check(t, Detach(cfg))
		other := filepath.Join(t.TempDir(), "other")
		check(t, createFile(other, deviceSize, (*os.File).Truncate))
		check(t, MakeFilesystem(t.Context(), other, "11111111-2222-3333-4444-555555555555"))
		run(t, "dd", "if="+other, "of="+cfg.Data, "bs=4096", "count=1", "conv=notrunc") // over one of two stamps
		if with {
			check(t, os.WriteFile(rules, []byte(strings.ReplaceAll(rule, "/var/lib/consumer", filepath.Dir(cfg.Data))),
				0o644))
			udevadm("control", "--reload")
		}
		p = opened(t, cfg)
		udevadm("settle", "--timeout=20")
		if found := linksTo(t, p); (len(found) > 0) == with {
			t.Errorf("with the rule %t: links to loops: %q", with, found)
		}
		check(t, Detach(cfg))
	}
}
