package deb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/test/cloud"
	tarballs "imagemanager.internal/test/images"
)

// settings are what the operator writes into the environment file.
const settings = `S3_BUCKET=%s
SQS_QUEUE_URL=%s
AWS_ENDPOINT_URL=%s
SQS_WAIT=1s
`

// keys is the file with the operator's access key.
const keys = "/etc/consumer/aws"

// dropIn hands the access key over, as docs/deployment.md has it, and shortens the
// watchdog's patience.
const dropIn = "/etc/systemd/system/consumer.service.d/override.conf"

const dropInText = `[Service]
LoadCredential=aws:` + keys + `
Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws
WatchdogSec=15
`

// TestInside is what an operator does. It is root on a machine of its own.
func TestInside(t *testing.T) {
	if os.Getenv("CIM_DEB_INSIDE") == "" {
		t.Skip("it installs packages, so it runs in a machine of its own: make test-deb")
	}
	t.Setenv("DEBIAN_FRONTEND", "noninteractive")
	makeState(t)
	c, err := cloud.Emulate(t.TempDir(), nil)
	check(t, err)
	defer func() { check(t, c.Close()) }()
	bucket, err := c.Bucket(t.Context(), "images")
	check(t, err)
	check(t, bucket.Notify(t.Context()))

	if out := run(t, "dpkg", "-i", "/before.deb"); !strings.Contains(out, "consumer pool create") {
		t.Errorf("the installation does not say what to do next:\n%s", out)
	}
	if out, err := exec.CommandContext(t.Context(), "systemctl", "is-active", "consumer").Output(); err == nil {
		t.Errorf("it was started without settings: %s", out)
	}
	f, err := os.OpenFile("/etc/consumer/consumer.env", os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	_, err = fmt.Fprintf(f, settings, bucket.Name, bucket.Queue, c.URL)
	check(t, err)
	check(t, f.Close())
	check(t, os.MkdirAll(filepath.Dir(dropIn), 0o755)) //nolint:gosec // as systemd's own
	check(t, os.WriteFile(dropIn, []byte(dropInText), 0o600))
	check(t, os.WriteFile(keys, []byte("[default]\naws_access_key_id = x\naws_secret_access_key = x\n"), 0o600))
	run(t, "systemctl", "daemon-reload")
	run(t, "consumer", "pool", "create", "--data-size", "1GiB")
	run(t, "systemctl", "start", "consumer")
	if got := show(t, "StatusText"); got != "ready" {
		t.Errorf("its status is %q", got)
	}

	checkExposure(t)

	check(t, bucket.Put(t.Context(), "images/a.tar", tarballs.RootFS("hello", 3)))
	waitActive(t, "images/a.tar")
	checkSnapshot(t)

	pid := show(t, "MainPID")
	if out := run(t, "dpkg", "-i", "/now.deb"); strings.Contains(out, "consumer pool create") {
		t.Errorf("an upgrade says what to do after the first installation:\n%s", out)
	}
	if now := show(t, "MainPID"); now == pid || now == "0" {
		t.Errorf("process %s before the upgrade, %s after it", pid, now)
	}
	check(t, bucket.Put(t.Context(), "images/b.tar", tarballs.RootFS("hello again", 3)))
	waitActive(t, "images/b.tar")
	checkSnapshot(t)

	checkComesBack(t, "KILL")
	checkComesBack(t, "STOP") // the watchdog ends it
	run(t, "systemctl", "stop", "consumer")
	if got := show(t, "Result") + " " + show(t, "ExecMainStatus"); got != "success 0" {
		t.Errorf("it ended: %s", got)
	}
	checkRemoval(t)
}

// makeState makes a file system for the daemon's files: the root file system is that of
// another machine.
func makeState(t *testing.T) {
	t.Helper()
	run(t, "mkfs.ext4", "-q", "/dev/ubda")
	check(t, os.MkdirAll("/var/lib/consumer", 0o700))
	run(t, "mount", "/dev/ubda", "/var/lib/consumer")
	check(t, os.Remove("/var/lib/consumer/lost+found"))
}

// show returns a property of the unit.
func show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "systemctl", "show", "--value", "-p", property, "consumer"))
}

// journal returns the end of the daemon's log.
func journal(t *testing.T) string {
	t.Helper()
	return run(t, "journalctl", "--no-pager", "-u", "consumer", "-n", "50")
}

// waitActive waits until an image is there.
func waitActive(t *testing.T, key string) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		out := run(t, "consumer", "images")
		for line := range strings.Lines(out) {
			if strings.Contains(line, key) && strings.Contains(line, "active") {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become active:\n%s\n%s", key, out, journal(t))
		}
	}
}

// checkSnapshot mounts the first snapshot in /dev/mapper, and reads a file of it.
func checkSnapshot(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob("/dev/mapper/*-snapshot-*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no snapshot in /dev/mapper: %v", err)
	}
	dir := t.TempDir()
	run(t, "mount", paths[0], dir)
	text, err := os.ReadFile(filepath.Join(dir, "rootfs/etc/hello"))
	run(t, "umount", dir)
	if err != nil || !strings.HasPrefix(string(text), "hello") {
		t.Errorf("the snapshot's file: %q, %v", text, err)
	}
}

// checkComesBack sends the daemon a signal, and waits until systemd has started it again.
func checkComesBack(t *testing.T, signal string) {
	t.Helper()
	pid := show(t, "MainPID")
	run(t, "systemctl", "kill", "--kill-who=main", "--signal="+signal, "consumer")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		if now := show(t, "MainPID"); now != "0" && now != pid && show(t, "ActiveState") == "active" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("SIG%s: it is not started again:\n%s", signal, journal(t))
		}
	}
}

// mostExposed is the exposure that the unit may have, as systemd counts it: 10 is that of
// a unit without any confinement.
const mostExposed = 3.3

// checkExposure asks systemd how well it confines the daemon.
func checkExposure(t *testing.T) {
	t.Helper()
	out := run(t, "systemd-analyze", "security", "--no-pager", "consumer")
	_, last, _ := strings.Cut(out, "Overall exposure level for consumer.service: ")
	level, err := strconv.ParseFloat(strings.Fields(last + " none")[0], 64)
	if err != nil || level > mostExposed {
		t.Errorf("exposure %.1f, %v:\n%s", level, err, out)
	}
}

// checkRemoval removes the package and purges it: no device stays, and the images do.
func checkRemoval(t *testing.T) {
	t.Helper()
	run(t, "dpkg", "--remove", "container-image-manager")
	if left, err := filepath.Glob("/dev/mapper/cim-*"); err != nil || len(left) > 0 {
		t.Errorf("devices are left: %v, %v", left, err)
	}
	if out := run(t, "dpkg", "--purge", "container-image-manager"); !strings.Contains(out, "/var/lib/consumer") {
		t.Errorf("nobody says that the images stay:\n%s", out)
	}
	if _, err := os.Stat("/var/lib/consumer/consumer.db"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/consumer/consumer.env"); err == nil {
		t.Error("the settings are left")
	}
}
