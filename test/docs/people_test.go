package docs

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	tarballs "imagemanager.internal/test/images"
)

// constants returns the values of a package's constants of the given types that are
// strings.
func constants(t *testing.T, dir string, types ...string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			kind, _ := spec.Type.(*ast.Ident)
			for _, v := range spec.Values {
				text, ok := v.(*ast.BasicLit)
				if !ok || kind == nil || !slices.Contains(types, kind.Name) {
					continue
				}
				value, err := strconv.Unquote(text.Value)
				if err != nil {
					t.Error(err)
				}
				values = append(values, value)
			}
			return true
		})
	}
	return values
}

// Every word that a listing has for states, verdicts, stages and events is in the
// glossary.
func TestGlossary(t *testing.T) {
	words := slices.Concat(
		constants(t, "internal/store", "State", "DeviceState", "EventKind", "Stage"),
		constants(t, "internal/pipeline", "verdict"))
	if len(words) < 25 {
		t.Errorf("only %d words: this test does not see them", len(words))
	}
	glossary := read(t, "docs/glossary.md")
	for _, word := range words {
		if !strings.Contains(glossary, "`"+word+"`") && !strings.Contains(glossary, "*"+word+"*") {
			t.Errorf("docs/glossary.md does not explain %s", word)
		}
	}
}

// refusals returns the codes that docs/refused.md explains, with the row of each.
func refusals(t *testing.T) map[string]string {
	t.Helper()
	code := regexp.MustCompile("`([a-z0-9_:]+)`")
	rows := map[string]string{}
	_, tables, _ := strings.Cut(read(t, "docs/refused.md"), "\n## Names\n")
	tables, _, found := strings.Cut(tables, "\n## It was not refused")
	if !found {
		t.Fatal("docs/refused.md has no tables of codes")
	}
	for row := range strings.Lines(tables) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		for _, m := range code.FindAllStringSubmatch(first, -1) {
			if rows[m[1]] != "" {
				t.Errorf("docs/refused.md explains %s twice", m[1])
			}
			rows[m[1]] = row
		}
	}
	return rows
}

// verdictRejected finds the classes of errors by which an image is refused.
var verdictRejected = regexp.MustCompile(`, reject, (?:"([a-z0-9_]+)"|classRefused)\}`)

// The page for whoever's image was refused has every code, says which the policy distro
// takes, and has no others.
func TestRefusals(t *testing.T) {
	rows := refusals(t)
	const taken = "**distro**"
	for _, r := range archive.Rules() {
		row := rows[string(r.Reason)]
		switch {
		case row == "":
			t.Errorf("docs/refused.md does not explain %s", r.Reason)
		case strings.Contains(row, taken) != (r.Distro != archive.Reject):
			t.Errorf("docs/refused.md is wrong about the policy distro and %s: it is %s", r.Reason, r.Distro)
		case strings.Count(row, " | ") != map[bool]int{true: 1, false: 2}[r.Violation]:
			t.Errorf("docs/refused.md: %s stands in the wrong table", r.Reason)
		}
		delete(rows, string(r.Reason))
	}
	for _, m := range verdictRejected.FindAllStringSubmatch(read(t, "internal/pipeline/verdict.go"), -1) {
		code := m[1]
		if code == "" {
			code = "refused_by_s3"
		}
		if rows[code] == "" && code != "image_too_big" { // a rule as well
			t.Errorf("docs/refused.md does not explain %s", code)
		}
		delete(rows, code)
	}
	for code := range rows {
		t.Errorf("docs/refused.md explains %s, which does not exist", code)
	}
}

// The page for whoever's image was refused shows a reason as it is printed.
func TestSampleOfARefusal(t *testing.T) {
	image := tarballs.Tar(tarballs.Root(
		tarballs.Entry{Name: "usr/bin/su", Body: "su", Mode: 0o4755},
		tarballs.Entry{Name: "sh", Link: "/usr/bin/sh"})...)
	_, err := archive.Check(t.Context(), bytes.NewReader(image), int64(len(image)), archive.Options{})
	if err == nil || !strings.Contains(read(t, "docs/refused.md"), "```text\n"+err.Error()+"\n```") {
		t.Errorf("docs/refused.md does not show this reason:\n%v", err)
	}
}

// longPage is how many lines a page may have without a table of contents.
const longPage = 300

// A long page begins with a table of its contents.
func TestContents(t *testing.T) {
	title := regexp.MustCompile(`(?m)^## (.+)$`)
	for name, text := range pages(t) {
		if strings.Count(text, "\n") <= longPage {
			continue
		}
		head, _, _ := strings.Cut(text, "\n## ")
		for _, m := range title.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(head, "["+m[1]+"](#") {
				t.Errorf("%s has more than %d lines and no link to %q before its first heading", name, longPage, m[1])
			}
		}
	}
}
