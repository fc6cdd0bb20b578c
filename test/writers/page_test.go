package writers

import (
	"os"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
)

const page = "../../docs/images.md"

// The table stands between these lines of the page.
const (
	tableBegin = "<!-- The verdicts: written by `make test-images UPDATE=1`. -->\n"
	tableEnd   = "<!-- End of the verdicts. -->\n"
	tableHead  = "| tool | version | how | shape | plain: `strict` | full: `strict` | `distro` | `trusted` |\n" +
		"|---|---|---|---|---|---|---|---|\n"
)

// row is a line of the table.
type row struct {
	writer

	version     string
	plain, full verdicts // by tree; plain is nil for a tree of Debian's
}

// String is the line. Which of several broken rules strict names depends on the order in
// the archive, so the line has none.
func (r row) String() string {
	first, strict, show := "–", "refused", verdict.names
	if r.plain != nil {
		first, show = r.plain[archive.Strict].String(), verdict.String
	}
	if v := r.full[archive.Strict]; v.refused == "" {
		strict = v.String()
	}
	return "| " + strings.Join([]string{
		r.tool, r.version, "`" + r.how + "`", r.shape, first, strict, show(r.full[archive.Distro]),
		show(r.full[archive.Trusted]),
	}, " | ") + " |\n"
}

// cells returns the cells of a table's line but the version: another version of a tool
// may have the same verdicts.
func cells(line string) []string {
	list := strings.Split(strings.Trim(line, "|\n "), " | ")
	if len(list) < 3 {
		return list
	}
	return slices.Delete(list, 1, 2)
}

// tableOnPage returns the page's table, and what stands before and behind it.
func tableOnPage(t *testing.T) (before, table, behind string) {
	t.Helper()
	text, err := os.ReadFile(page)
	check(t, err)
	before, rest, found := strings.Cut(string(text), tableBegin)
	table, behind, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		t.Fatalf("%s has no table between\n%s%s", page, tableBegin, tableEnd)
	}
	return before + tableBegin, table, tableEnd + behind
}

// checkPage compares the table with the page's, or writes it there with CIM_UPDATE=1.
func checkPage(t *testing.T, rows []row) {
	t.Helper()
	table := tableHead
	for _, r := range rows {
		table += r.String()
	}
	before, old, behind := tableOnPage(t)
	if os.Getenv("CIM_UPDATE") == "1" {
		check(t, os.WriteFile(page, []byte(before+table+behind), 0o644))
		return
	}
	want := strings.Split(strings.TrimPrefix(old, tableHead), "\n")
	for i, r := range rows {
		if i >= len(want) || !slices.Equal(cells(want[i]), cells(r.String())) {
			t.Errorf("the table on %s should have this line; `make test-images UPDATE=1` writes it:\n%s", page, r)
		}
	}
}

// The page has a line for every writer, in their order, and no other.
func TestPageHasEveryWriter(t *testing.T) {
	_, table, _ := tableOnPage(t)
	lines := strings.Split(strings.TrimSpace(strings.TrimPrefix(table, tableHead)), "\n")
	all := writers()
	if len(lines) != len(all) {
		t.Fatalf("%d lines, %d writers: `make test-images UPDATE=1` writes them", len(lines), len(all))
	}
	for i, w := range all {
		if want := cells(row{writer: w}.String())[:3]; !slices.Equal(cells(lines[i])[:3], want) {
			t.Errorf("the page has %s, and should have %v", lines[i], want)
		}
	}
}
