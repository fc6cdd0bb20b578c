package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A program that brings its kernel down is run again on the same disk, which has what was
// synced; one whose kernel dies without having been asked to has failed.
func TestReboots(t *testing.T) {
	t.Parallel()
	program := build(t)
	const boot = `echo boot $CIM_BOOT; cat $TMPDIR/synced $CIM_BOOT_DIR/kept 2>/dev/null; `
	const die = `echo c > /proc/sysrq-trigger; echo went on`
	for name, c := range map[string]struct {
		script, out, errOut string
		code                int
	}{
		"twice": {
			boot + `[ $CIM_BOOT = 2 ] && exit 3; echo disk >> $TMPDIR/synced; sync; ` +
				`echo host >> $CIM_BOOT_DIR/kept; : > $CIM_BOOT_DIR/down; ` + die,
			"boot 0\nboot 1\ndisk\nhost\nboot 2\ndisk\ndisk\nhost\nhost\n", "", 3,
		},
		"not announced": {boot + die, "boot 0\n", "the guest ended without running the program to its end", exitGuest},
	} {
		cmd := exec.Command(program, "--", "/bin/sh", "-c", c.script)
		cmd.Env = append(os.Environ(), "CIM_UML_REBOOTS=1")
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		code := exitCodeOf(t, cmd.Run())
		if code != c.code || out.String() != c.out || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("%s: exit code %d, want %d; output %q, want %q; standard error %q",
				name, code, c.code, out.String(), c.out, errOut.String())
		}
	}
}
