package dmctl

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	testName = "dmctl-test"
	testUUID = "DMCTL-test"
)

// newControl skips where there is no device-mapper and nobody insists on one; `make
// test-uml` does.
func newControl(t *testing.T) *Control {
	t.Helper()
	c, err := Open(func(string) string { return "test" })
	switch {
	case err == nil:
	case os.Getenv("CIM_REQUIRE_DM") == "1":
		t.Fatalf("device-mapper is required: %v", err)
	default:
		t.Skipf("needs device-mapper, run by `make test-uml`: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Remove(testUUID); err != nil && !errors.Is(err, unix.ENXIO) {
			t.Error(err)
		}
		if err := errors.Join(c.RemoveStaleNodes(testName), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A device goes from its creation to its removal, and each step is visible.
func TestLifeOfADevice(t *testing.T) {
	c := newControl(t)
	d, err := c.Create(testName, testUUID)
	check(t, err)
	if d.Live() || d.Name != testName || d.UUID != testUUID {
		t.Errorf("created: %+v", d)
	}
	if _, err := c.Create("dmctl-other", testUUID); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second device of the UUID: %v, want EBUSY", err)
	}
	if _, _, err := c.LiveTable(testUUID); !errors.Is(err, unix.ENODATA) {
		t.Errorf("table before Load: %v, want ENODATA", err)
	}
	want := Table{Sectors: 2048, Target: "error"}
	check(t, c.Load(testUUID, want, true))
	check(t, c.Resume(testUUID))
	d, have, err := c.LiveTable(testUUID)
	if err != nil || have != want || !d.Live() || d.Suspended() || !d.ReadOnly() {
		t.Errorf("live: %+v, %+v, %v", d, have, err)
	}
	list, err := c.List("DMCTL-")
	if err != nil || len(list) != 1 || list[0].Number != d.Number {
		t.Errorf("listed: %+v, %v", list, err)
	}
	check(t, c.Remove(testUUID))
	if err := c.Remove(testUUID); !errors.Is(err, unix.ENXIO) {
		t.Errorf("second removal: %v, want ENXIO", err)
	}
	if _, err := c.Find(testUUID); !errors.Is(err, ErrNotFound) {
		t.Errorf("found after its removal: %v", err)
	}
}

// The public path leads to the device; one that is left over is removed, one in use by
// another device is not.
func TestNodes(t *testing.T) {
	c := newControl(t)
	d, err := c.Create(testName, testUUID)
	check(t, err)
	check(t, d.MakeNode())
	check(t, d.MakeNode())
	if !isNode(d.Path(), d.Number) {
		t.Errorf("%s is not the device %s", d.Path(), d.MajorMinor())
	}
	check(t, errors.Join(os.Remove(d.Path()), os.Symlink("/dev/null", d.Path())))
	check(t, d.MakeNode())
	if !isNode(d.Path(), d.Number) {
		t.Errorf("%s leads to another device still", d.Path())
	}
	if path, err := c.WorkPath(d.Path()); err != nil || !isNode(path, d.Number) {
		t.Errorf("work path %s: %v", path, err)
	}
	for _, path := range []string{"/dev/null", Dir + "dmctl-none"} {
		if got, err := c.WorkPath(path); err != nil || got != path {
			t.Errorf("work path of %s: %s, %v", path, got, err)
		}
	}
	other := d
	other.Number++
	check(t, other.RemoveNode())
	check(t, c.RemoveStaleNodes(testName))
	if !isNode(d.Path(), d.Number) {
		t.Error("the path of a live device was removed")
	}
	check(t, c.Remove(testUUID))
	check(t, c.RemoveStaleNodes(testName))
	if _, err := os.Lstat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
}

func TestCheckTarget(t *testing.T) {
	c := newControl(t)
	check(t, c.CheckTarget("error"))
	if err := c.CheckTarget("no-such-target"); err == nil {
		t.Error("a target that does not exist")
	}
}
