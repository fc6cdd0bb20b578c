package store

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
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

// What is asked for each message, job, command or reconcile costs as much as it returns,
// not as much as there ever was: no query reads a table that grows from end to end.
func TestQueriesUseIndexes(t *testing.T) {
	s, texts := newStore(t), constants(t)
	for _, name := range []string{
		"imageByID", "imageByObject", "newestByETag", "imagesByKey", "imagesByETag", "imagesPending",
		"imagesNeverAttempted", "imageCounts", "devicesPresent", "devicesOf", "deviceCounts", "devicesLeft",
		"keptCounts", "deviceHandedOut", "eventsOf", "eventsAfter", "messageTried", "lastSeq", "snapshotsAll",
		"snapshotsOf", "snapshotByID", "snapshotByPath", "adjustmentsOf", "imagesKept", "imagesVerifiable",
		"imagesWithPrefix", "treeInUse", "sizeSelect",
	} {
		for _, step := range plan(t, s, texts[name]) {
			if fullScan.MatchString(step) && !ofLiving.MatchString(step) {
				t.Errorf("%s: %s", name, step)
			}
		}
	}
}

var (
	// fullScan is a step that reads a table, or an index of one, from end to end.
	fullScan = regexp.MustCompile(`^SCAN (images|events|devices|snapshots|adjustments|i|s|d)\b`)
	// ofLiving is one that reads an index without what is over.
	ofLiving = regexp.MustCompile(`INDEX (images_pending|devices_living|devices_state|snapshots_active)$`)
)

// plan returns the steps of a query (https://www.sqlite.org/eqp.html).
func plan(t *testing.T, s *Store, query string) []string {
	t.Helper()
	if query == "" {
		t.Fatal("no such query")
	}
	args := make([]any, strings.Count(query, "?"))
	rows, err := s.readDB.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil || len(steps) == 0 {
		t.Fatalf("%s: %d steps, %v", query, len(steps), err)
	}
	return steps
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
