package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exprs returns every expression by where it stands.
func exprs() map[string]string {
	all := map[string]string{}
	for _, a := range alerts {
		all["alert "+a.name] = a.expr
		if a.cloudWatch != "" {
			all["alert "+a.name+" in CloudWatch"] = a.cloudWatch
		}
	}
	for _, q := range panelList() {
		all["panel "+q.Panel+": "+q.Expr] = q.Expr
	}
	return all
}

// documented returns the labels of every metric in the table of docs/operating.md.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	line := regexp.MustCompile(`(?m)^\| (` + "`imagemanager_" + `[^|]*) \| ([^|]*) ?\|`)
	for _, m := range line.FindAllStringSubmatch(read(t, "docs/operating.md"), -1) {
		for _, name := range regexp.MustCompile(`imagemanager_[a-z_]+`).FindAllString(m[1], -1) {
			all[name] = strings.Split(strings.TrimSpace(m[2]), ", ")
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d metrics found: this test does not see them", len(all))
	}
	return all
}

// Every metric that is asked for is one that the program has, by labels that it has:
// docs/operating.md has them all. Prometheus itself, Go and the process have some more.
func TestMetricsExist(t *testing.T) {
	metrics := documented(t)
	elsewhere := regexp.MustCompile(`^(up|go_goroutines|process_[a-z_]+)$`)
	for where, expr := range exprs() {
		selected, err := selectors(expr)
		if err != nil || len(selected) == 0 {
			t.Fatalf("%s: %v", where, err)
		}
		for _, s := range selected {
			labels, exists := metrics[s.metric]
			if !exists && isHistogram(s.metric) {
				labels, exists = metrics[s.metric[:strings.LastIndex(s.metric, "_")]]
			}
			if !exists && !elsewhere.MatchString(s.metric) {
				t.Errorf("%s: docs/operating.md has no %s", where, s.metric)
			}
			for _, l := range s.labels {
				if !slices.Contains(append(labels, "le", "job", "instance"), l) {
					t.Errorf("%s: docs/operating.md has no label %s of %s", where, l, s.metric)
				}
			}
		}
	}
}

func TestSelectors(t *testing.T) {
	have, err := selectors(`sum by (state) (rate(a{stage="x",state!="idle"}[5m])) / sum without (b) (c)`)
	if err != nil || len(have) != 2 {
		t.Fatalf("%v, %v", have, err)
	}
	if have[0].metric != "a" || !slices.Equal(have[0].labels, []string{"stage", "state"}) ||
		have[1].metric != "c" || len(have[1].labels) > 0 {
		t.Errorf("%v", have)
	}
	if _, err := selectors("sum("); err == nil {
		t.Error("half an expression was taken")
	}
}

func TestRewritten(t *testing.T) {
	for _, c := range []struct {
		name       string
		rewrite    func(string) (string, error)
		expr, want string
	}{
		{
			"of chosen hosts", ofInstance, `a{b="c"} / rate(d[5m])`,
			`a{b="c",instance=~"$instance"} / rate(d{instance=~"$instance"}[5m])`,
		},
		{
			"native histogram", inCloudWatch, `histogram_quantile(0.9, rate(a_bucket{b="c"}[5m])) > 1`,
			`histogram_quantile(0.9, rate(a{b="c"}[5m])) > 1`,
		},
		{"no histogram", inCloudWatch, `a_total > 1`, `a_total > 1`},
	} {
		if have, err := c.rewrite(c.expr); err != nil || have != c.want {
			t.Errorf("%s: have %s, %v, want %s", c.name, have, err, c.want)
		}
	}
}
