package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

// promtool runs Debian's promtool, which `make setup-test` fetches, or the machine's own.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	program := filepath.Join(top, ".cache", "prometheus", "promtool")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("promtool"); err != nil {
			t.Fatal("promtool is missing: make setup-test")
		}
	}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func TestPrometheusTakesTheFiles(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", "prometheus-rules.yml")
	promtool(t, "check", "config", "--lint-fatal", "prometheus.yml")
	promtool(t, "check", "config", filepath.Join("cloudwatch", "scrape.yml"))
	promtool(t, "check", "config", "--syntax-only", filepath.Join(top, "localstack", "observe", "prometheus.yml"))
}

// Debian's Prometheus is older than the parser used here: it must know all functions that
// panels ask for. promtool looks at expressions in rules only.
func TestPrometheusTakesThePanels(t *testing.T) {
	var records []any
	for _, q := range panelList() {
		records = append(records, map[string]string{"record": "panel", "expr": q.Expr})
	}
	promtool(t, "check", "rules", "--lint=none", yamlFile(t, map[string]any{
		"groups": []any{map[string]any{"name": "panels", "rules": records}},
	}))
}

// yamlFile writes v to a file and returns its name.
func yamlFile(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every alert fires when it should, with labels and summary, and is silent just before.
func TestAlerts(t *testing.T) {
	rules, err := filepath.Abs("prometheus-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		t.Run(a.name, func(t *testing.T) {
			c := ruleCases[a.name]
			if len(c.fires.want) == 0 || len(c.silent.series) == 0 || len(c.silent.want) > 0 {
				t.Fatal("it takes a case that fires and one that does not")
			}
			tests := []any{ruleTest(a, c.fires), ruleTest(a, c.silent)}
			if more, ok := moreCases[a.name]; ok {
				tests = append(tests, ruleTest(a, more))
			}
			promtool(t, "test", "rules", yamlFile(t, map[string]any{"rule_files": []string{rules}, "tests": tests}))
		})
	}
}

// ruleTest returns a moment as a test of promtool.
func ruleTest(a alert, m moment) map[string]any {
	var series, want []any
	for s, values := range m.series {
		series = append(series, map[string]string{"series": s, "values": values})
	}
	for _, e := range m.want {
		labels := map[string]string{"job": "imagemanager", "instance": "a", "severity": string(a.severity)}
		for name, value := range e.labels {
			labels[name] = value
		}
		want = append(want, map[string]any{"exp_labels": labels, "exp_annotations": map[string]string{
			"summary": e.summary, "runbook_url": a.runbook("docs/runbooks.md"),
		}})
	}
	return map[string]any{
		"interval": "1m", "input_series": series,
		"alert_rule_test": []any{map[string]any{"eval_time": m.at, "alertname": a.title(), "exp_alerts": want}},
	}
}
