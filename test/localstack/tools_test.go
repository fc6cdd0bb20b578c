// Package localstack tests what the directory localstack holds: the set-up script against
// the emulator, by the AWS CLI, and the compose file as far as that goes without Docker.
package localstack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/test/program"
)

var (
	root  = filepath.Join("..", "..")
	setup = filepath.Join(root, "localstack", "setup.sh")
	hook  = filepath.Join(root, "localstack", "init", "ready.d", "10-setup.sh")
)

// awsCLI is Debian's if it is there, whatever else is in front of it in PATH.
func awsCLI(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/bin/aws"); err == nil {
		return "/usr/bin/aws"
	}
	return program.Require(t, "aws", "awscli")
}

// outcome is how a program ended.
type outcome struct {
	out, errs string
	code      int
}

// execute runs a program with nothing in its environment but PATH, HOME and what is
// given, so that the machine's own credentials and settings play no part.
func execute(t *testing.T, env []string, program string, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"},
		env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// succeed is execute for what must not fail.
func succeed(t *testing.T, env []string, program string, args ...string) outcome {
	t.Helper()
	got := execute(t, env, program, args...)
	if got.code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", program, strings.Join(args, " "), got.code, got.errs)
	}
	return got
}
