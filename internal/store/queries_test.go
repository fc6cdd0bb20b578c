package store

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every query constant of the package prepares against the migrated schema.
func TestQueriesPrepare(t *testing.T) {
	s := newStore(t)
	n := 0
	for name, text := range constants(t) {
		verb, _, _ := strings.Cut(text, " ")
		switch verb {
		case "SELECT", "INSERT", "UPDATE", "DELETE":
		default:
			continue
		}
		n++
		stmt, err := s.readDB.PrepareContext(t.Context(), text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := stmt.Close(); err != nil {
			t.Error(err)
		}
	}
	if n < 40 {
		t.Errorf("only %d queries: this test misses some", n)
	}
}

// constants returns the string constants and variables in the package's source that are
// literals and sums of them.
func constants(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]ast.Expr{}
	for _, file := range must[[]string](t)(filepath.Glob("*.go")) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f := must[*ast.File](t)(parser.ParseFile(token.NewFileSet(), file, nil, 0))
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Names) == len(spec.Values) {
				for i, name := range spec.Names {
					found[name.Name] = spec.Values[i]
				}
			}
			return true
		})
	}
	texts := map[string]string{}
	for name, e := range found {
		if text, ok := textOf(found, e); ok {
			texts[name] = text
		}
	}
	return texts
}

// textOf evaluates a string literal, a constant, or a sum of them.
func textOf(known map[string]ast.Expr, e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		if of, ok := known[e.Name]; ok {
			return textOf(known, of)
		}
	case *ast.BinaryExpr:
		x, okX := textOf(known, e.X)
		y, okY := textOf(known, e.Y)
		return x + y, okX && okY
	}
	return "", false
}
