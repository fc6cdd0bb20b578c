package localstack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/test/program"
)

// Every shell script of the repository passes shellcheck.
func TestShellcheck(t *testing.T) {
	checker := program.Require(t, "shellcheck", "shellcheck")
	if got := execute(t, nil, checker, files(t, "*.sh", ".ci/*")...); got.code != 0 {
		t.Error(got.out + got.errs)
	}
}

// Every YAML file of the repository passes yamllint.
func TestYAML(t *testing.T) {
	args := append([]string{"--strict", "--config-file", filepath.Join(root, ".yamllint.yml")},
		files(t, "*.yml", "*.yaml")...)
	if got := execute(t, nil, program.Require(t, "yamllint", "yamllint"), args...); got.code != 0 {
		t.Error(got.out + got.errs)
	}
}

// files are the paths of the repository's files that match, ignored ones left out.
func files(t *testing.T, patterns ...string) []string {
	t.Helper()
	args := append([]string{
		"-c", "safe.directory=*", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
	}, patterns...)
	listed := succeed(t, nil, program.Require(t, "git", "git"), args...)
	var paths []string
	for _, name := range strings.Split(strings.TrimRight(listed.out, "\x00"), "\x00") {
		if path := filepath.Join(root, name); fileExists(path) { // not deleted meanwhile
			paths = append(paths, path)
		}
	}
	if len(paths) < 3 {
		t.Fatalf("found %q only: this test does not look where the files are", paths)
	}
	return paths
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
