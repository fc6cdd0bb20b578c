package localstack

import (
	"os"
	"path/filepath"
	"regexp"
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

// The image needs what the Dockerfile copies, and no more of the repository than
// dockerignore lets through.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "localstack", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := os.ReadFile(filepath.Join(root, "localstack", "Dockerfile.dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	copied := regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(string(text), -1)
	if len(copied) < 3 {
		t.Fatalf("copies %q only", copied)
	}
	for _, line := range copied {
		for _, name := range strings.Fields(line[1]) {
			if !fileExists(filepath.Join(root, name)) || !strings.Contains(string(ignore), "\n!"+name+"\n") {
				t.Errorf("%s is not in the repository, or not let through", name)
			}
		}
	}
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if v := release.FindSubmatch(mod); v == nil || !strings.Contains(string(text), "FROM golang:"+string(v[1])+"-") {
		t.Errorf("the Dockerfile does not build with the Go release of go.mod: %q", v)
	}
}
