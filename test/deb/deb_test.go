// Package deb tests the Debian package as its users meet it: on a fresh Debian, under
// systemd, on a real thin pool, in user-mode-linux.
//
// The test has two halves. The one outside unpacks a Debian, puts both packages and the
// test itself there, and boots it. The one inside is a service of that Debian; it is root
// in a machine of its own.
package deb

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// unit runs the half inside, writes down how it ended, and powers off.
const unit = `[Unit]
Description=Test of the Debian package
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=file:/log
StandardError=file:/log
Environment=CIM_DEB_INSIDE=1 HOME=/root
WorkingDirectory=/
TimeoutStartSec=10min
ExecStart=/bin/sh -c '/deb.test -test.v -test.run "^TestInside$$"; echo $$? >/exit-code'
ExecStopPost=/bin/systemctl poweroff --force
[Install]
WantedBy=graphical.target
`

// setting returns a variable of the test, which `make test-deb` sets.
func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Skipf("%s is not set: make test-deb", name)
	}
	return value
}

// Installed on a fresh Debian, upgraded, stopped, removed and purged.
func TestPackage(t *testing.T) {
	tree := t.TempDir()
	run(t, "tar", "-C", tree, "-xf", setting(t, "CIM_DEB_TREE"))
	run(t, "cp", setting(t, "CIM_DEB_BEFORE"), filepath.Join(tree, "before.deb"))
	run(t, "cp", setting(t, "CIM_DEB"), filepath.Join(tree, "now.deb"))
	self, err := os.Executable()
	check(t, err)
	run(t, "cp", self, filepath.Join(tree, "deb.test"))
	const service = "etc/systemd/system/test-deb.service"
	check(t, os.WriteFile(filepath.Join(tree, service), []byte(unit), 0o600))
	run(t, "systemctl", "--root", tree, "set-default", "graphical.target")
	run(t, "systemctl", "--root", tree, "enable", "test-deb.service")
	uml := exec.CommandContext(t.Context(), setting(t, "CIM_UML"), "--system", tree)
	out, err := uml.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(tree, "log")) // without one the other output tells why
	t.Logf("%s\n%s", out, log)
	if err != nil {
		t.Error(err)
	}
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
