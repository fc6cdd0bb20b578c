// Package docs holds the README, the project's files and the pages in docs/ against the
// code: what they name must exist, and what an operator must know must be named.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/awsmetrics"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/test/page"
)

const root = "../.."

func read(t *testing.T, rel string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages returns the text of every page by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all, err := page.All(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The table of rules stands between these lines of the page.
const (
	rulesBegin = "<!-- The rules: from archive.Rules(); test/docs prints this table when it is out of date. -->\n"
	rulesEnd   = "<!-- End of the rules. -->\n"
)

// ruleTable renders the rules as the page has them.
func ruleTable() string {
	var b strings.Builder
	b.WriteString("| code | when | strict | distro | trusted | violation |\n|---|---|---|---|---|---|\n")
	for _, r := range archive.Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", r.Reason, strings.ReplaceAll(r.When, "|", `\|`),
			r.Strict, r.Distro, r.Trusted,
			map[bool]string{true: "yes", false: ""}[r.Violation])
	}
	return b.String()
}

func TestSecurityHasTheRules(t *testing.T) {
	_, rest, found := strings.Cut(read(t, "docs/security.md"), rulesBegin)
	table, _, closed := strings.Cut(rest, rulesEnd)
	if !found || !closed || strings.TrimSpace(table) != strings.TrimSpace(ruleTable()) {
		t.Errorf("docs/security.md does not have this table, or has another one; paste it:\n%s%s%s",
			rulesBegin, ruleTable(), rulesEnd)
	}
}

// names is a Registerer that only notes what the metrics are called.
type names map[string]bool

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (n names) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	for d := range descs {
		m := fqName.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("no name in %s", d)
		}
		n[m[1]] = true
	}
	return nil
}

func (n names) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := n.Register(c); err != nil {
			n[err.Error()] = true // a name that no page has
		}
	}
}

func (names) Unregister(prometheus.Collector) bool { return false }

// metricName finds metrics in a page; a histogram may be named by one of its series.
var metricName = regexp.MustCompile(`\bimagemanager_[a-z_]+`)

// Operators find every metric on the page, and no page names one that does not exist.
func TestMetricsAreDocumented(t *testing.T) {
	registered := names{}
	pipeline.NewMetrics(registered, nil)
	provision.NewMetrics(registered)
	reconcile.NewMetrics(registered)
	pipeline.RegisterReady(registered, nil)
	pipeline.RegisterConditions(registered, nil)
	awsmetrics.New(registered)
	metric.RegisterInfo(registered, "", "", "")
	if len(registered) < 10 {
		t.Fatalf("only %d metrics: %v", len(registered), registered)
	}
	operating := metricName.FindAllString(read(t, "docs/operating.md"), -1)
	for name := range registered {
		if !slices.Contains(operating, name) {
			t.Errorf("docs/operating.md does not name %s", name)
		}
	}
	for page, text := range pages(t) {
		for _, name := range metricName.FindAllString(text, -1) {
			series := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
			if !registered[name] && !registered[series] {
				t.Errorf("%s names %s, which is not registered", page, name)
			}
		}
	}
}

// settings returns the variables of cmd/consumer/config.go, from the envconfig tags of
// its struct.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "cmd", "consumer", "config.go"), nil,
		parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		tag, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			t.Error(err)
		}
		if name := reflect.StructTag(tag).Get("envconfig"); name != "" {
			all[name] = true
		}
		return true
	})
	if len(all) < 20 {
		t.Fatalf("only %d settings: %v", len(all), all)
	}
	return all
}

// settingName finds what looks like a variable: words of capitals, alone or with a value.
var settingName = regexp.MustCompile("`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[`=]")

// kernelFlag is a flag of a system call or a capability, which look like settings.
var kernelFlag = regexp.MustCompile("^(O|RESOLVE|GLIBC|CAP)_")

// composeVariable is one that the compose file puts in from the environment.
var composeVariable = regexp.MustCompile(`\$\{([A-Z_0-9]+):?-`)

// tracesVariable is one that the program reads itself; exporterVariable is one that it
// leaves to OpenTelemetry.
var (
	tracesVariable   = regexp.MustCompile(`= "(OTEL_[A-Z_]+)"`)
	exporterVariable = regexp.MustCompile("^OTEL_(SERVICE_NAME$|EXPORTER_OTLP_|BSP_)")
)

// credential is one that the SDK reads itself.
var credential = regexp.MustCompile("^AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SHARED_CREDENTIALS_FILE)$")

// colourVariable is what programs for the terminal agree on: https://no-color.org.
var colourVariable = regexp.MustCompile("^NO_COLOR$")

// Every setting that a page mentions exists: as one of the program, of its traces, or of
// the compose file.
func TestSettingsExist(t *testing.T) {
	known, mentioned := settings(t), 0
	for _, m := range tracesVariable.FindAllStringSubmatch(read(t, "internal/tracing/config.go"), -1) {
		known[m[1]] = true
	}
	text, err := os.ReadFile(filepath.Join(root, "localstack", "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range composeVariable.FindAllStringSubmatch(string(text), -1) {
		known[m[1]] = true
	}
	for page, text := range pages(t) {
		for _, m := range settingName.FindAllStringSubmatch(text, -1) {
			mentioned++
			isOther := func(names *regexp.Regexp) bool { return names.MatchString(m[1]) }
			others := []*regexp.Regexp{kernelFlag, testVariable, exporterVariable, credential, colourVariable}
			if !known[m[1]] && !slices.ContainsFunc(others, isOther) {
				t.Errorf("%s mentions %s, which is not a setting", page, m[1])
			}
		}
	}
	if mentioned < 20 {
		t.Errorf("only %d mentions of settings found: this test does not see them", mentioned)
	}
}

// testVariable finds a variable that the tests read, and not the program.
var testVariable = regexp.MustCompile(`\b(?:CIM|E2E|CONFORMANCE|CONSUMER)_[A-Z][A-Z_]*[A-Z]\b`)

// The page for developers lists every variable of the tests, and no others.
func TestVariablesOfTests(t *testing.T) {
	documented, used := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `("+testVariable.String()+")` \\|").
		FindAllStringSubmatch(read(t, "docs/development.md"), -1) {
		documented[m[1]] = true
	}
	for _, top := range []string{"cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" ||
				strings.HasPrefix(path, filepath.Join(root, "test", "docs")) {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`"(`+testVariable.String()+`)=?"`).FindAllSubmatch(text, -1) {
				used[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(used) < 20 {
		t.Errorf("only %d variables found: this test does not see them", len(used))
	}
	for name := range used {
		if !documented[name] {
			t.Errorf("docs/development.md does not say what %s is", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/development.md has %s, which nothing reads", name)
	}
}

var (
	pathName = regexp.MustCompile("`((?:internal|cmd|test|localstack|deploy|docs)/[A-Za-z0-9_./-]+)`")
	testName = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	linkName = regexp.MustCompile(`\]\(([^):#]*)(?:#([^)]+))?\)`)
)

// Files, tests, pages and headings that a page refers to exist: a claim that something is
// tested names the test.
func TestReferencesExist(t *testing.T) {
	tests := allTests(t)
	for page, text := range pages(t) {
		for _, m := range pathName.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
		for _, m := range linkName.FindAllStringSubmatch(text, -1) {
			checkLink(t, page, m[1], m[2])
		}
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
	}
}

// checkLink fails unless the target exists, and has the heading if one is given. The
// target is relative to the page; an empty one is the page itself.
func checkLink(t *testing.T, page, target, heading string) {
	t.Helper()
	file := page
	if target != "" {
		file = filepath.Join(filepath.Dir(page), target)
	}
	if _, err := os.Stat(filepath.Join(root, file)); err != nil {
		t.Errorf("%s: %v", page, err)
		return
	}
	if heading != "" && !headings(read(t, file))[heading] {
		t.Errorf("%s links to %s#%s, and there is no such heading", page, file, heading)
	}
}

var (
	headingLine  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchors = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// headings returns the anchors that GitHub gives to a page's headings.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range headingLine.FindAllStringSubmatch(text, -1) {
		anchor := notInAnchors.ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return anchors
}

// allTests returns the names of the tree's tests.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	declared, all := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`), map[string]bool{}
	for _, top := range []string{"cmd", "deploy", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range declared.FindAllSubmatch(text, -1) {
				all[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
