package devmapper

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
)

// needUdevd returns a way to run udevadm. It skips unless a udevd is promised, as by
// `make test-udev`: the tests hold it up, which is not to be done to the udevd of a
// machine that others use. Those tests have Udevd in their names.
func needUdevd(t *testing.T) (udevadm func(args ...string)) {
	t.Helper()
	if os.Getenv("CIM_REQUIRE_UDEV") != "1" {
		t.Skip("needs a udevd that may be held up, run by `make test-udev`")
	}
	if out, err := exec.Command("udevadm", "control", "--ping", "--timeout=5").CombinedOutput(); err != nil {
		t.Fatalf("a running udevd is required: %v: %s", err, out)
	}
	return func(args ...string) {
		t.Helper()
		if out, err := exec.Command("udevadm", args...).CombinedOutput(); err != nil {
			t.Errorf("udevadm %v: %v: %s", args, err, out) // not only from the test's goroutine
		}
	}
}

// queue has udevd work on events, or hold them up. It is told several times: a message
// that comes before it has set up the connection it ignores ("invalid sender uid").
func queue(udevadm func(args ...string), what string) {
	for range 3 {
		udevadm("control", "--"+what+"-exec-queue")
	}
}

// missingWhile reports whether a path is missing at any time until task has ended.
func missingWhile(path string, task func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); task() }()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for missing := false; ; {
		_, err := os.Stat(path)
		missing = missing || err != nil
		select {
		case <-done:
			return missing
		case <-tick.C:
		}
	}
}

// udevd is behind, as at boot: it works on events of a device that is gone when another
// one is active. The path of the active device is there all the time.
func TestPathWithUdevdBehind(t *testing.T) {
	udevadm := needUdevd(t)
	p, _ := newPool(t)
	newImage(t, p)
	check(t, p.Deactivate(1))
	missing := 0
	const rounds = 5
	for i := range rounds {
		udevadm("settle", "--timeout=20")
		queue(udevadm, "stop")
		old, fresh := ID(100+i), ID(200+i)
		check(t, p.CreateSnapshot(old, 1))
		check(t, p.CreateSnapshot(fresh, 1))
		_, err := p.Activate(old, KindSnapshot, deviceSize, false)
		check(t, err)
		check(t, p.Deactivate(old))
		path, err := p.Activate(fresh, KindSnapshot, deviceSize, false)
		check(t, err)
		if missingWhile(path, func() {
			queue(udevadm, "start")
			udevadm("settle", "--timeout=20")
		}) {
			missing++
		}
		check(t, p.Deactivate(fresh))
	}
	if missing > 0 {
		t.Errorf("the path of an active device vanished for a while in %d of %d rounds", missing, rounds)
	}
}

// A device is activated again right after it was deactivated, before udevd has settled:
// once it has, the path is there and is the right one.
func TestPathAfterReactivationBesideUdevd(t *testing.T) {
	udevadm := needUdevd(t)
	p, cfg := newPool(t)
	newImage(t, p)
	check(t, p.Deactivate(1))
	for round := range 30 {
		_, err := p.Activate(1, KindImage, deviceSize, false)
		check(t, err)
		<-time.After(time.Duration(round) * time.Millisecond) // udevd has come more or less far
		check(t, p.Deactivate(1))
		path, err := p.Activate(1, KindImage, deviceSize, false)
		check(t, err)
		udevadm("settle", "--timeout=10")
		d, err := p.ctl.Find(cfg.thinUUID(1))
		check(t, err)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Rdev != d.Number {
			t.Errorf("round %d: %s is not the device %s", round, path, d.MajorMinor())
		}
		check(t, p.Deactivate(1))
		udevadm("settle", "--timeout=10")
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("round %d: %s is there after its device", round, path)
		}
	}
}

// Everything is detached and attached again at once, as at pool repair and the next
// start: every path is there when udevd has settled.
func TestPathsAfterReopenBesideUdevd(t *testing.T) {
	udevadm := needUdevd(t)
	p, cfg := newPool(t)
	newImage(t, p)
	check(t, p.Deactivate(1))
	const first, end = ID(2), ID(12)
	for id := first; id < end; id++ {
		check(t, p.CreateSnapshot(id, 1))
	}
	activate := func() (paths []string) {
		for id := first; id < end; id++ {
			path, err := p.Activate(id, KindSnapshot, deviceSize, false)
			check(t, err)
			paths = append(paths, path)
		}
		return paths
	}
	for range 3 {
		activate()
		check(t, p.Close())
		check(t, Detach(cfg))
		p = opened(t, cfg)
		paths := activate()
		udevadm("settle", "--timeout=10")
		for _, path := range append(paths, dmctl.Dir+cfg.poolName()) {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
		for id := first; id < end; id++ {
			check(t, p.Deactivate(id))
		}
	}
}

// The public path goes away under our hands, as udevd can take it: our own work does not
// need it.
func TestWorkWithoutPublicPath(t *testing.T) {
	p, _ := newPool(t)
	path := newImage(t, p)
	_ = exec.Command("udevadm", "settle", "--timeout=20").Run() // where there is a udevd, it makes no path later
	check(t, os.Remove(path))
	check(t, MakeFilesystem(t.Context(), path, "11111111-2222-3333-4444-555555555555"))
	lost(t, path)
	m, err := MountDetached(path, ext4.MountBuild)
	check(t, err)
	write(t, m, "file", "x")
	check(t, m.Sync())
	check(t, m.Close())
	check(t, p.Discard(1))
	lost(t, path)
	if _, err = p.Activate(1, KindImage, deviceSize, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path is not made again: %v", err)
	}
}

// lost makes sure that nobody has made the path again, which would make the test
// worthless.
func lost(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		t.Fatalf("%s is there again", path)
	}
}
