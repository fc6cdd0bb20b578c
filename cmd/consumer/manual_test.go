package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// update makes the golden files and the pages of the manual again: `make docs`.
var update = flag.Bool("update", false, "write the golden files and the manual instead of comparing")

// same compares a text with a file, or writes the file.
func same(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	have, want := strings.Split(text, "\n"), strings.Split(string(golden), "\n")
	for i := range max(len(have), len(want)) {
		if i >= len(have) || i >= len(want) || have[i] != want[i] {
			t.Errorf("%s:%d differs (`make docs` writes it again):\n%s\nis now:\n%s", path, i+1,
				strings.Join(want[min(i, len(want)):], "\n"), strings.Join(have[min(i, len(have)):], "\n"))
			return
		}
	}
}

// manual returns the commands with a page: the program, its groups, and all that do
// something. Those of the group completion are cobra's.
func manual() []*cobra.Command {
	var pages []*cobra.Command
	for _, c := range commands(newProgram(io.Discard)) {
		if (c.IsAvailableCommand() || !c.HasParent()) && !strings.HasPrefix(c.CommandPath(), "consumer completion ") {
			pages = append(pages, c)
		}
	}
	return pages
}

// The page of commands has the help of each.
func TestPageOfCommands(t *testing.T) {
	var page strings.Builder
	page.WriteString("# Commands\n\nThis is the help of every command; `make docs` makes the page. " +
		"`docs/man` has the same for man(1).\n")
	page.WriteString("\n")
	for _, c := range manual() {
		path := c.CommandPath()
		fmt.Fprintf(&page, "- [%s](#%s): %s\n", path, strings.ReplaceAll(path, " ", "-"), c.Short)
	}
	for _, c := range manual() {
		_, help := perform(t, strings.TrimPrefix(c.CommandPath(), "consumer")+" --help")
		fmt.Fprintf(&page, "\n## %s\n\n```text\n%s```\n", c.CommandPath(), help)
	}
	same(t, "../../docs/cli.md", page.String())
}

// Every command has a page for man(1).
func TestPagesForMan(t *testing.T) {
	const dir = "../../docs/man"
	var never time.Time
	pages := map[string]bool{}
	for _, c := range manual() {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		pages[name+".1"] = true
		c.InitDefaultHelpFlag()
		c.DisableAutoGenTag = true
		c.Use = strings.NewReplacer("<", `\<`, ">", `\>`).Replace(c.Use) // for cobra they are HTML
		title, codes, _ := strings.Cut(c.Annotations[exitsNote], "\n")
		c.Long += "\n\n" + title + "\n\n    " + strings.ReplaceAll(codes, "\n", "\n    ")
		header := &doc.GenManHeader{
			Title: strings.ToUpper(name), Section: "1", Date: &never, Source: " ", Manual: "Container Image Manager",
		}
		var text bytes.Buffer
		if err := doc.GenMan(c, header, &text); err != nil {
			t.Fatal(err)
		}
		// a page does not change with the day
		same(t, filepath.Join(dir, name+".1"), strings.Replace(text.String(), never.Format("Jan 2006"), "", 1))
	}
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if !pages[f.Name()] {
			t.Errorf("docs/man has %s, and there is no such command", f.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}
