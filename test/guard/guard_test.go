// Package guard holds the rules of the house that neither the compiler nor the linter
// checks: who may import whom, how long a file and a function may be, that every package
// says what it is for and has tests, and that nothing is left for later.
package guard

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module      = "imagemanager.internal"
	maxFile     = 400 // lines
	maxFunction = 60  // lines, without the signature's
)

var (
	root = filepath.Join("..", "..")
	// skipped are directories that are not the tree's own words: what was built, fetched
	// or is given to tests.
	skipped = []string{".git", ".cache", "bin", "testdata"}
	// failpoint may be passed anywhere: it does nothing but in the crash tests.
	failpoint = "internal/failpoint"
	// shared are what every other package may import: they import none of ours.
	shared = []string{failpoint, "internal/durable"}
	leaves = []string{
		"internal/queue", "internal/archive", "internal/devmapper", "internal/store",
		"internal/download",
	}
)

// source is one parsed file.
type source struct {
	path string // relative to the repository
	dir  string
	fset *token.FileSet
	file *ast.File
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) line(p token.Pos) int { return s.fset.Position(p).Line }

func (s source) at(n ast.Node) string { return s.path + ":" + strconv.Itoa(s.line(n.Pos())) }

func (s source) imports() []string {
	var list []string
	for _, im := range s.file.Imports {
		if path, err := strconv.Unquote(im.Path.Value); err == nil {
			list = append(list, path)
		}
	}
	return list
}

// walk calls f for every file of the tree with its path relative to the root.
func walk(f func(rel string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return f(rel)
	})
}

var parse = sync.OnceValues(func() ([]source, error) {
	var list []source
	err := walk(func(rel string) error {
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(root, rel), nil, parser.ParseComments)
		list = append(list, source{rel, filepath.Dir(rel), fset, file})
		return err
	})
	return list, err
})

func sources(t *testing.T) []source {
	t.Helper()
	list, err := parse()
	if err != nil || len(list) < 20 {
		t.Fatalf("found only %d files: this test does not look where the code is, or cannot read it: %v",
			len(list), err)
	}
	return list
}

// within tells whether a directory is one of those, or below one.
func within(dir string, those ...string) bool {
	return slices.ContainsFunc(those, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

// The layout is a star: leaves do not know each other, the pipeline knows them, the
// program wires. Only tests import test/.
func TestStar(t *testing.T) {
	for _, s := range sources(t) {
		for _, im := range s.imports() {
			own, ours := strings.CutPrefix(im, module+"/")
			switch {
			case !ours || s.isTest() || within(s.dir, "test"):
			case within(own, "test"):
				t.Errorf("%s imports %s: nothing but tests imports test/", s.path, im)
			case slices.Contains(shared, own):
			case within(s.dir, leaves...) && !within(own, s.dir):
				t.Errorf("%s imports %s: leaves do not import each other or the pipeline", s.path, im)
			case within(s.dir, "internal/pipeline") && !within(own, leaves...):
				t.Errorf("%s imports %s: the pipeline imports the leaves only", s.path, im)
			}
		}
	}
}

// The package that anything may import has one function, imports none of ours, and is
// empty but for the crash tests.
func TestFailpoint(t *testing.T) {
	files := 0
	for _, s := range sources(t) {
		if s.dir != failpoint || s.isTest() {
			continue
		}
		files++
		for _, im := range s.imports() {
			if strings.Contains(strings.SplitN(im, "/", 2)[0], ".") {
				t.Errorf("%s imports %s: failpoint needs the standard library only", s.path, im)
			}
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			switch {
			case ok && fn.Name.IsExported() && fn.Name.Name != "Here":
				t.Errorf("%s exports %s: failpoint is Here and nothing else", s.at(fn), fn.Name.Name)
			case ok && strings.HasSuffix(s.path, "_off.go") && len(fn.Body.List) > 0:
				t.Errorf("%s does something outside of the crash tests", s.at(fn))
			}
		}
	}
	if files != 2 {
		t.Errorf("%d files in %s, want the one of the tag failpoint and the empty one", files, failpoint)
	}
}

// Some packages are for some directories only, tests apart: the rest of the program does
// not know that they exist.
func TestWhoUsesWhat(t *testing.T) {
	rules := []struct {
		pkg  string // with a trailing slash, all below it
		dirs []string
		why  string
	}{
		{
			"golang.org/x/sys/unix",
			[]string{"internal/devmapper", "internal/archive"},
			"system calls are for devmapper and archive",
		},
		{"database/sql", []string{"internal/store"}, "SQL is for the store"},
		{"github.com/mattn/go-sqlite3", []string{"internal/store"}, "SQLite is for the store"},
		{
			"github.com/aws/",
			[]string{"internal/queue", "internal/download", "cmd"},
			"the AWS SDK is for queue, download and the wiring",
		},
		{"github.com/rs/zerolog", []string{"internal/pipeline", "cmd"}, "leaves do not log"},
		{"github.com/prometheus/", []string{"internal/pipeline", "cmd"}, "leaves do not count"},
		{"github.com/kelseyhightower/envconfig", []string{"cmd"}, "leaves are configured by whoever makes them"},
		{"log", nil, "the log is zerolog's"},
		{"log/slog", nil, "the log is zerolog's"},
		{"unsafe", []string{"internal/devmapper", "internal/archive"}, "only system calls need it"},
	}
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, im := range s.imports() {
			for _, r := range rules {
				if im != r.pkg && (!strings.HasSuffix(r.pkg, "/") || !strings.HasPrefix(im, r.pkg)) {
					continue
				}
				used[r.pkg] = true
				if !s.isTest() && !within(s.dir, "test") && !within(s.dir, r.dirs...) {
					t.Errorf("%s imports %s: %s", s.path, im, r.why)
				}
			}
		}
	}
	for _, r := range rules {
		if r.dirs != nil && !used[r.pkg] {
			t.Errorf("nothing imports %s: this rule guards nothing", r.pkg)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		if n := s.fset.File(s.file.Pos()).LineCount(); n > maxFile {
			t.Errorf("%s has %d lines, at most %d: split it by meaning", s.path, n, maxFile)
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := s.line(fn.Body.Rbrace) - s.line(fn.Body.Lbrace) - 1; n > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d", s.path, fn.Name.Name, n, maxFunction)
			}
		}
	}
}

// Every package says in one place what it is for, and has tests of its own. Programs
// under test/ are tested by those that run them.
func TestPackages(t *testing.T) {
	type facts struct{ comment, code, tests, program bool }
	packages := map[string]facts{}
	for _, s := range sources(t) {
		f := packages[s.dir]
		f.comment = f.comment || s.file.Doc != nil && len(s.file.Doc.Text()) > 20
		f.code = f.code || !s.isTest()
		f.tests = f.tests || s.isTest()
		f.program = f.program || s.file.Name.Name == "main"
		packages[s.dir] = f
	}
	for dir, f := range packages {
		if !f.comment {
			t.Errorf("%s: no file has a package comment that says what it is for", dir)
		}
		if byOthers := f.program && within(dir, "test"); f.code && !f.tests && !byOthers {
			t.Errorf("%s has no test", dir)
		}
	}
}

// No context is kept in a struct, no interface has more than five methods.
func TestTypes(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.InterfaceType:
				if n.Methods.NumFields() > 5 {
					t.Errorf("%s: an interface with %d methods, at most 5", s.at(n), n.Methods.NumFields())
				}
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if is(f.Type, "context", "Context") {
						t.Errorf("%s: a context in a struct", s.at(f))
					}
				}
			}
			return true
		})
	}
}

// is tells whether an expression is pkg.name.
func is(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// A test neither sleeps, unless its line says why it must, nor is it skipped without a
// word.
func TestTests(t *testing.T) {
	for _, s := range sources(t) {
		if !s.isTest() {
			continue
		}
		excused := map[int]bool{}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//nolint:") {
					excused[s.line(c.Pos())] = true
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, method := call.Fun.(*ast.SelectorExpr)
			switch {
			case is(call.Fun, "time", "Sleep") && !excused[s.line(call.Pos())]:
				t.Errorf("%s: sleeps; wait on a channel, or use testing/synctest", s.at(call))
			case method && (sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && len(call.Args) == 0):
				t.Errorf("%s: skips and does not say why", s.at(call))
			}
			return true
		})
	}
}

// What is not done is an issue, not a note in the code.
func TestNothingIsLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`)
	err := walk(func(rel string) error {
		text, err := os.ReadFile(filepath.Join(root, rel))
		if err != nil || bytes.IndexByte(text, 0) >= 0 { // a program or an image
			return err
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if later.Match(line) {
				t.Errorf("%s:%d: %s", rel, i+1, bytes.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// largest is the most that a tracked file may have. What is larger was built or fetched.
const largest = 1 << 20

// Nothing that was built is tracked: it would be in every clone for good.
func TestNothingBuiltIsTracked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) { // deleted, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > largest {
			t.Errorf("%s has %d bytes, %d is the limit", path, info.Size(), largest)
		}
	}
}

// The linter is configured, with what these tests rely on it for.
func TestLinterIsStrict(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, linter := range []string{
		"errcheck", "errorlint", "forbidigo", "govet", "nolintlint", "revive",
		"staticcheck",
	} {
		if !regexp.MustCompile(`(?m)^ +- ` + linter + `$`).Match(text) {
			t.Errorf(".golangci.yml does not enable %s", linter)
		}
	}
}
