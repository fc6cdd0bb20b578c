package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// alarm is what these tests read of an alarm in the template.
type alarm struct {
	Type       string
	Properties struct {
		AlarmDescription   string
		EvaluationInterval int
		EvaluationCriteria struct {
			PromQLCriteria struct {
				Query         string
				PendingPeriod int
			}
		}
	}
}

// Every alert is an alarm within CloudWatch's limits. Its histograms are native.
func TestAlarms(t *testing.T) {
	text := read(t, "deploy/observe/cloudwatch/alarms.cfn.json")
	if len(text) > 51_200 {
		t.Errorf("%d bytes: such a template cannot be given to CloudFormation without a bucket", len(text))
	}
	var template struct{ Resources map[string]alarm }
	if err := json.Unmarshal([]byte(text), &template); err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		p := template.Resources[a.name].Properties
		c := p.EvaluationCriteria.PromQLCriteria
		if n := len(c.Query); n < 1 || n > 10_000 || p.EvaluationInterval < 10 || p.EvaluationInterval > 3600 {
			t.Errorf("%s: a query of %d bytes every %d s", a.name, n, p.EvaluationInterval)
		}
		if c.PendingPeriod != int(a.pending.Seconds()) || c.PendingPeriod > 86_400 || len(p.AlarmDescription) > 1024 {
			t.Errorf("%s: pending for %d s, described with %d bytes", a.name, c.PendingPeriod, len(p.AlarmDescription))
		}
		if strings.Contains(c.Query, "_bucket") || strings.Contains(c.Query, "job=") {
			t.Errorf("%s: CloudWatch has no such series: %s", a.name, c.Query)
		}
		if _, err := selectors(c.Query); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

// The fallback keeps every counter and gauge of the dashboard and no histogram, and the
// page names the panels that are lost.
func TestFallback(t *testing.T) {
	declared, err := declarations()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := plainMetrics()
	if err != nil {
		t.Fatal(err)
	}
	for metric := range metrics {
		matches := 0
		for _, d := range declared {
			if regexp.MustCompile(d.MetricSelectors[0]).MatchString(metric) {
				matches++
			}
		}
		if matches != 1 || isHistogram(metric) {
			t.Errorf("%s is declared %d times", metric, matches)
		}
	}
	lost, err := lostPanels()
	if err != nil || len(lost) < 5 {
		t.Fatalf("%q, %v", lost, err)
	}
	page := strings.Join(strings.Fields(read(t, "docs/operating.md")), " ")
	for _, title := range lost {
		if !strings.Contains(page, title) {
			t.Errorf("docs/operating.md does not say that the fallback loses %q", title)
		}
	}
}

// Both agents read one file of what to scrape, by the path that the page tells.
func TestAgents(t *testing.T) {
	page := read(t, "docs/operating.md")
	for _, name := range []string{"agent.json", "agent-emf.json"} {
		text := read(t, "deploy/observe/cloudwatch/"+name)
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is not JSON", name)
		}
		path := regexp.MustCompile(`"(?:prometheus_)?config_path": "([^"]+)"`).FindStringSubmatch(text)
		if path == nil || !strings.Contains(page, path[1]) {
			t.Errorf("%s: docs/operating.md does not have the path %q", name, path)
		}
	}
}
