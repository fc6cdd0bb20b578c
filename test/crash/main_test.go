// Package crash kills the real daemon, and the whole kernel under it, at every point
// where it matters, kills it again while it recovers, and checks the invariants
// afterwards. `make test-crash` runs all of it, `make test-uml` a selection.
//
// The kernel can only be killed in user-mode-linux: `uml-run` boots again, on the same
// disks, and starts this program again. Its progress is in a file on the host's file
// system, and so is what only S3 and SQS would know: the objects, and which messages were
// deleted. The emulator of both dies with the kernel. In the next boot it gets the same
// objects.
//
// CIM_CRASH_EVERY=k takes every k-th case (1: all), CIM_CRASH_CASE=n the n-th alone, with
// -test.run one that failed. CIM_CRASH_RANDOM sets the number of kills at random moments,
// CIM_CRASH_SEED the moments.
package crash

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"testing"

	"imagemanager.internal/internal/devmapper"
	machine "imagemanager.internal/test/host"
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := devmapper.Probe(); err != nil || os.Getenv("CIM_BOOT_DIR") == "" {
		return m.Run() // the tests say what is missing
	}
	var err error
	if saved, err = openProgress(os.Getenv("CIM_BOOT_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	interrupts := make(chan os.Signal, 1) // buffered: package signal does not wait
	signal.Notify(interrupts, os.Interrupt)
	go func() {
		for range interrupts {
			fmt.Println("interrupted; the case in hand is finished first")
			saved.interrupt()
		}
	}()
	code := m.Run()
	if w := saved.testbed; w != nil {
		_ = w.cloud.Close() // its files are the guest's
	}
	saved.print()
	if len(saved.Failures) > 0 && code == 0 { // from before a reboot
		code = 1
	}
	return code
}

// needGuest skips the test without a guest to kill, unless CIM_REQUIRE_DM=1 requires one,
// as in `make test-uml`.
func needGuest(t *testing.T) {
	t.Helper()
	machine.NeedPool(t)
	switch {
	case saved != nil:
	case os.Getenv("CIM_REQUIRE_DM") == "1":
		t.Fatal("a guest of user-mode-linux with CIM_UML_REBOOTS=1 is required")
	default:
		t.Skip("needs a guest of user-mode-linux, run by `make test-uml`")
	}
}

// setting is a number from the environment.
func setting(name string, otherwise int) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return otherwise
	}
	return n
}
