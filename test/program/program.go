// Package program finds the programs that tests run beside the one under test.
package program

import (
	"os"
	"os/exec"
	"testing"
)

// Require returns the path of a program, which is in a package of Debian. Without the
// program the test is skipped, or fails with CIM_REQUIRE_TOOLS=1.
func Require(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CIM_REQUIRE_TOOLS") == "1":
		t.Fatalf("%s is not installed: apt-get install %s", name, debian)
	default:
		t.Skipf("%s is not installed: apt-get install %s", name, debian)
	}
	return path
}
