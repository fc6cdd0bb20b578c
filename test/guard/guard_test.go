// Package guard holds the rules of the house that neither the compiler nor the linter
// checks. Rules about imports, sizes, widths and words are in .golangci.yml.
package guard

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	failpoint  = "internal/failpoint"
	maxMethods = 40
	maxTracked = 1 << 20 // bytes; a larger file was built or fetched
)

var (
	root = filepath.Join("..", "..")
	// skipped are directories without sources of this repository: what was built or
	// fetched, and what tests read.
	skipped = []string{".git", ".cache", "bin", "testdata"}
	// manyMethods are the types that may have more than maxMethods.
	manyMethods = map[string]string{
		"internal/store.Store": "one method for each question to the journal; they share only the database",
		"test/emulator.s3Call": "one method for each operation of S3",
		"test/emulator.queues": "one method for each operation of SQS",
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

func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

var parse = sync.OnceValues(func() ([]source, error) {
	var list []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		list = append(list, source{rel, filepath.Dir(rel), fset, file})
		return err
	})
	return list, err
})

func sources(t *testing.T) []source {
	t.Helper()
	list, err := parse()
	if err != nil || len(list) < 20 {
		t.Fatalf("found %d Go files, want at least 20: %v", len(list), err)
	}
	return list
}

// Any package may import internal/failpoint. Therefore it exports one function, imports
// the standard library only, and does nothing without the tag failpoint.
func TestFailpoint(t *testing.T) {
	files := 0
	for _, s := range sources(t) {
		if s.dir != failpoint || s.isTest() {
			continue
		}
		files++
		for _, im := range s.file.Imports {
			if strings.Contains(strings.SplitN(im.Path.Value, "/", 2)[0], ".") {
				t.Errorf("%s imports %s: failpoint needs the standard library only", s.path, im.Path.Value)
			}
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			switch {
			case ok && fn.Name.IsExported() && fn.Name.Name != "Here":
				t.Errorf("%s exports %s: failpoint exports Here and nothing else", s.at(fn), fn.Name.Name)
			case ok && strings.HasSuffix(s.path, "_off.go") && len(fn.Body.List) > 0:
				t.Errorf("%s does something without the tag failpoint", s.at(fn))
			}
		}
	}
	if files != 2 {
		t.Errorf("%s has %d files, want two: with the tag failpoint and without", failpoint, files)
	}
}

// Every package has a comment that says what it is for, and tests of its own. Programs
// under test/ are tested by the tests that run them.
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
			t.Errorf("%s: no file has a package comment", dir)
		}
		if testedByOthers := f.program && strings.HasPrefix(dir, "test/"); f.code && !f.tests && !testedByOthers {
			t.Errorf("%s has no test", dir)
		}
	}
}

// A type with more methods than this does more than one thing.
func TestMethods(t *testing.T) {
	methods := map[string]int{} // by directory and type
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv != nil && !s.isTest() {
				methods[s.dir+"."+receiver(fn)]++
			}
		}
	}
	for name, n := range methods {
		if _, allowed := manyMethods[name]; n > maxMethods && !allowed {
			t.Errorf("%s has %d methods, at most %d: split it by meaning", name, n, maxMethods)
		}
	}
	for name, reason := range manyMethods {
		if n := methods[name]; n <= maxMethods {
			t.Errorf("%s has %d methods and needs no exception (%s): remove it", name, n, reason)
		}
	}
}

// receiver returns the name of the type that a method belongs to.
func receiver(fn *ast.FuncDecl) string {
	expr := fn.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr: // T[P]
			expr = e.X
		case *ast.IndexListExpr: // T[P, Q]
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}

// A skipped test says why.
func TestSkips(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) > 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if ok && (sel.Sel.Name == "SkipNow" || s.isTest() && sel.Sel.Name == "Skip") {
				t.Errorf("%s: skips and does not say why", s.at(call))
			}
			return true
		})
	}
}

// What is skipped under the race detector runs without it: a line of the Makefile names
// the test and its package.
func TestSkippedUnderRaceRunsElsewhere(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || !s.isTest() || !uses(fn, "underRace") {
				continue
			}
			seen++
			if !slices.ContainsFunc(strings.Split(string(makefile), "\n"), func(line string) bool {
				return strings.HasPrefix(line, "\tgo test -run '^"+fn.Name.Name+"$$'") &&
					slices.Contains(strings.Fields(line), "./"+s.dir)
			}) {
				t.Errorf("%s: no line `go test -run '^%s$$' ./%s` in the Makefile", s.at(fn), fn.Name.Name, s.dir)
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d tests look at underRace: has it another name now?", seen)
	}
}

// uses reports whether a function mentions a name.
func uses(fn *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && id.Name == name
		return !found
	})
	return found
}

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
		if info.Size() > maxTracked {
			t.Errorf("%s has %d bytes, at most %d", path, info.Size(), maxTracked)
		}
	}
}
