package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/page"
)

// languages are those that a block may be in. A guest runs what is sh.
var languages = []string{page.Shell, "text", "json", "ini"}

// Every block of a page says what it is. So none is a list of commands that nobody runs:
// the tests of test/e2e run all that are sh, but for those listed in package page.
func TestLanguages(t *testing.T) {
	for name, text := range pages(t) {
		for _, b := range page.Blocks(name, text) {
			if !slices.Contains(languages, b.Language) {
				t.Errorf("%s: the language is %q: write one of %q; commands are sh", b, b.Language, languages)
			}
			if b.Language == "json" && !json.Valid([]byte(b.Text)) {
				t.Errorf("%s: not JSON", b)
			}
			if b.Language == "text" && commandLine.MatchString(b.Text) && name != "docs/cli.md" {
				t.Errorf("%s: text with a command in it: commands are sh", b)
			}
		}
	}
}

// shellBlocks returns the blocks of commands.
func shellBlocks(t *testing.T) []page.Block {
	t.Helper()
	blocks, err := page.ShellBlocks(root)
	if err != nil || len(blocks) < 20 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	return blocks
}

// A shell can read every block of commands, also those that no test runs.
func TestShellReadsBlocks(t *testing.T) {
	for _, b := range shellBlocks(t) {
		cmd := exec.CommandContext(t.Context(), "bash", "-n")
		cmd.Stdin = strings.NewReader(b.Text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", b, err, out)
		}
	}
}

// Tests, targets and files that blocks name exist.
func TestBlocksNameWhatExists(t *testing.T) {
	runName := regexp.MustCompile(`-run '\^(Test\w+)\$'`)
	target := regexp.MustCompile(`(?m)^make ([a-z -]+)`)
	file := regexp.MustCompile(`(?:^|[ =:])\.?/?((?:localstack|deploy|docs|test|cmd|internal)/[a-zA-Z0-9_./-]+)`)
	tests, makefile := allTests(t), read(t, "Makefile")
	for _, b := range shellBlocks(t) {
		for _, m := range runName.FindAllStringSubmatch(b.Text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", b, m[1])
			}
		}
		for _, m := range target.FindAllStringSubmatch(b.Text, -1) {
			for _, name := range strings.Fields(m[1]) {
				if !strings.Contains(makefile, "\n"+name+":") {
					t.Errorf("%s: there is no target %s", b, name)
				}
			}
		}
		for _, m := range file.FindAllStringSubmatch(b.Text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s: %v", b, err)
			}
		}
	}
}
