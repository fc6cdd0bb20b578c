package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/page"
)

var (
	commandName = regexp.MustCompile("`consumer\\s+([^`]+)`")
	commandLine = regexp.MustCompile(
		`(?m)(?:^|[;&|(]|exec consumer|until|while|if|!) *(?:bin/)?consumer ([^;&|()#>\n]+)`)
	word     = regexp.MustCompile(`^[a-z]+$`)
	flagName = regexp.MustCompile(`^--([a-z-]+)`)
)

// Commands and flags that a page tells somebody to type exist: at three in the morning
// nobody guesses what was meant.
func TestCommandsExist(t *testing.T) {
	program := filepath.Join(t.TempDir(), "consumer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/consumer")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seen := map[string]bool{}
	for name, text := range pages(t) {
		for _, m := range commandsOf(name, text) {
			typed := strings.Join(strings.Fields(m), " ")
			if !seen[typed] {
				seen[typed] = true
				checkCommand(t, name, program, strings.Fields(typed))
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d commands found: this test does not see them", len(seen))
	}
}

// commandsOf returns what a page says behind `consumer`: in its lines, in its blocks of
// commands, and in the examples of the help.
func commandsOf(name, text string) []string {
	found := commandName.FindAllStringSubmatch(text, -1)
	for _, b := range page.Blocks(name, text) {
		lines := b.Text
		if b.Language != page.Shell {
			_, examples, _ := strings.Cut(b.Text, "\nExamples:\n")
			lines, _, _ = strings.Cut(examples, "\n\n")
		}
		found = append(found, commandLine.FindAllStringSubmatch(lines, -1)...)
	}
	var typed []string
	for _, m := range found {
		typed = append(typed, m[1])
	}
	return typed
}

// checkCommand fails unless the help of the command has all its flags. Its name is one
// word or two.
func checkCommand(t *testing.T, page, program string, typed []string) {
	t.Helper()
	name := slices.Clone(typed[:min(2, len(typed))])
	for len(name) > 0 && !word.MatchString(name[len(name)-1]) {
		name = name[:len(name)-1]
	}
	if typed[0] == "help" { // of a topic, or of a command
		if out, err := exec.CommandContext(t.Context(), program, name...).CombinedOutput(); err != nil {
			t.Errorf("%s: %q: %v: %s", page, name, err, out)
		}
		return
	}
	help, err := exec.CommandContext(t.Context(), program, append(name, "--help")...).CombinedOutput()
	if err != nil || !strings.Contains(string(help), strings.Join(append([]string{"consumer"}, name...), " ")) {
		t.Errorf("%s: there is no command %q: %v", page, name, err)
		return
	}
	for _, arg := range typed {
		flag := flagName.FindStringSubmatch(arg)
		if flag != nil && flag[1] != "help" && !regexp.MustCompile(`(?m)-`+flag[1]+`\b`).Match(help) {
			t.Errorf("%s: %q has no flag %s", page, name, arg)
		}
	}
}
