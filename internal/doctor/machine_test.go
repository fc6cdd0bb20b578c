package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/tool"
	"imagemanager.internal/internal/store"
)

// newMachine is one with a database and without a pool.
func newMachine(t *testing.T) *Machine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		StateDir: dir, Database: filepath.Join(dir, "consumer.db"), Listen: "127.0.0.1:0",
		Daemon: func(context.Context) (int, error) { return 0, errors.New("none") },
	}
	st, err := store.Open(t.Context(), m.Database)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// tree lists what is in a directory, with sizes and times.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(e.Name(), info.Size(), info.ModTime(), info.Mode()))
	}
	return list
}

// The database is only read: no file appears beside it.
func TestMachineIsOnlyRead(t *testing.T) {
	m := newMachine(t)
	before := fmt.Sprint(tree(t, m.StateDir))
	found := m.Check(t.Context())
	expect(t, found, "state-dir", OK, "0700", "")
	expect(t, found, "disk", OK, "are free", "")
	expect(t, found, "database", OK, "sound", "")
	expect(t, found, "listen-address", OK, "is free", "")
	expect(t, found, "pool", Fail, "no thin pool yet", "consumer pool create")
	allHaveRemedies(t, found)
	if after := fmt.Sprint(tree(t, m.StateDir)); after != before {
		t.Errorf("the state directory was %s, and is %s", before, after)
	}
}

// faultsOnMachine are planted one by one.
var faultsOnMachine = []struct {
	name   string
	plant  func(*testing.T, *Machine)
	check  string
	result Level
	text   string
	remedy string
}{
	{
		"no state directory", func(_ *testing.T, m *Machine) { m.StateDir += "x" },
		"state-dir", Fail, "there is no", "STATE_DIR",
	},
	{
		"a file for a state directory", func(_ *testing.T, m *Machine) { m.StateDir = m.Database },
		"state-dir", Fail, "not a directory", "STATE_DIR",
	},
	{"open state directory", func(t *testing.T, m *Machine) {
		if err := os.Chmod(m.StateDir, 0o755); err != nil {
			t.Fatal(err)
		}
	}, "state-dir", Warn, "0755", "chmod 700"},
	{
		"full disk", func(_ *testing.T, m *Machine) { m.MinFreeDisk = 1 << 60 },
		"disk", Fail, "are free", "STATE_MIN_FREE",
	},
	{"no database", func(t *testing.T, m *Machine) {
		if err := os.Remove(m.Database); err != nil {
			t.Fatal(err)
		}
	}, "database", Fail, "there is no", "consumer pool create"},
	{"damaged database", func(t *testing.T, m *Machine) {
		if err := os.WriteFile(m.Database, []byte("SQLite format 3\x00 and then nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, "database", Fail, "", "consumer recover"},
	{"address taken", func(t *testing.T, m *Machine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		m.Listen = l.Addr().String()
	}, "listen-address", Fail, "taken by another program", "LISTEN_ADDR"},
	{
		"address of another machine", func(_ *testing.T, m *Machine) { m.Listen = "192.0.2.1:9090" },
		"listen-address", Fail, "nobody can listen", "LISTEN_ADDR",
	},
	{"the daemon has the address", func(_ *testing.T, m *Machine) {
		m.Daemon = func(context.Context) (int, error) { return 4711, nil }
	}, "listen-address", OK, "process 4711", ""},
}

func TestFaultsOnMachine(t *testing.T) {
	for _, tc := range faultsOnMachine {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			tc.plant(t, m)
			found := m.Check(t.Context())
			expect(t, found, tc.check, tc.result, tc.text, tc.remedy)
			allHaveRemedies(t, found)
		})
	}
}

// A pool that must not be written to is named, and so is one that leaks.
func TestBadPools(t *testing.T) {
	sound := devmapper.Status{Mode: devmapper.ModeReadWrite}
	for _, tc := range []struct {
		status       devmapper.Status
		zeroes       bool
		want         Level
		text, remedy string
	}{
		{sound, true, OK, "read-write", ""},
		{sound, false, Fail, "does not zero", "consumer pool detach"},
		{devmapper.Status{Mode: devmapper.ModeReadWrite, NeedsCheck: true}, true, Fail, "check: true", "pool repair"},
		{devmapper.Status{Mode: devmapper.ModeReadOnly}, true, Fail, "read-only", "consumer pool repair"},
		{devmapper.Status{Mode: devmapper.ModeFailed}, true, Fail, "failed", "consumer pool repair"},
	} {
		expect(t, []Finding{judgePool("images", tc.status, tc.zeroes)}, "pool", tc.want, tc.text, tc.remedy)
	}
}

func TestMissingProgram(t *testing.T) {
	f := program(tool.Program{Name: "mke2fs.missing", Package: "e2fsprogs"})
	expect(t, []Finding{f}, "mke2fs.missing", Fail, "no program", "apt install e2fsprogs")
}

// The rule of the page for operators, and others that do not help.
func TestRuleOfUdev(t *testing.T) {
	const rule = `SUBSYSTEM=="block", KERNEL=="loop*", ATTR{loop/backing_file}=="%s", ` +
		`ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1"` + "\n"
	const data = "/var/lib/consumer/pool/data.img"
	for text, want := range map[string]bool{
		fmt.Sprintf(rule, "/var/lib/consumer/*"):      true,
		fmt.Sprintf(rule, "/other/*|/var/lib/*"):      true,
		fmt.Sprintf(rule, data):                       true,
		"# " + fmt.Sprintf(rule, data):                false,
		fmt.Sprintf(rule, "/other/*"):                 false,
		`ATTR{loop/backing_file}=="/var/*", NAME="x"`: false,
		"": false,
	} {
		if covered(text, data) != want {
			t.Errorf("%q: %t", text, !want)
		}
	}
}

func TestFilterOfLVM(t *testing.T) {
	for settings, want := range map[string]bool{
		`global_filter=["r|^/dev/mapper/cim-|","r|^/dev/loop|"]`:    true,
		`global_filter=["a|^/dev/sda|","r|.*|"]`:                    true,
		`global_filter=["a|.*|","r|^/dev/mapper/cim-|"]`:            false,
		`global_filter=["a|.*|"]`:                                   false,
		"global_filter=[\"r/^\\/dev\\/mapper\\/cim-/\"]":            true,
		`# global_filter=["r|.*|"]` + "\n" + `filter=["r|.*|"]`:     false,
		"use_devicesfile=0\n" + `global_filter=["r|^/dev/mapper|"]`: true,
	} {
		if refused(settings, "/dev/mapper/cim-images-snapshot-1") != want {
			t.Errorf("%s: %t", settings, !want)
		}
	}
}
