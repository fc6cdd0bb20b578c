// Command observe writes what watches the program: Grafana's dashboard, Prometheus's
// rules, the runbooks, and the same for CloudWatch. All of it comes from panels.go and
// alerts.go.
//
// It is a module of its own, so that the program does not depend on Grafana's SDK.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"imagemanager.internal/deploy/observe/cloudformation"
)

func main() {
	root := flag.String("root", filepath.Join("..", ".."), "top of the repository")
	runbooks := flag.String("runbooks", "docs/runbooks.md", "address of the runbooks in alerts")
	specification := flag.String("specification", "", "take the schemas of resources from this db.json.gz, and end")
	run := flag.String("recording", "", "keep the drawn part of this recording, before anything is made")
	flag.Parse()
	err := func() error {
		if *specification != "" {
			return extract(*root, *specification)
		}
		if *run != "" {
			if err := keep(*root, *run); err != nil {
				return err
			}
		}
		return write(*root, *runbooks)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "observe:", err)
		os.Exit(1)
	}
}

// output is a file that is made from the definition.
type output struct {
	path string // from the top of the repository
	make func() ([]byte, error)
}

const directory = "deploy/observe/"

// outputs are all files but the schemas and the recording. Runbooks is the address of
// docs/runbooks.md.
func outputs(root, runbooks string) []output {
	return []output{
		{"docs/dashboard.svg", func() ([]byte, error) { return picture(root) }},
		{"docs/runbooks.md", func() ([]byte, error) { return runbookPage(), nil }},
		{directory + "grafana.json", grafana},
		{directory + "panels.json", func() ([]byte, error) { return indented(panelList()) }},
		{directory + "prometheus-rules.yml", func() ([]byte, error) { return rules(runbooks) }},
		{directory + "cloudwatch/agent-emf.json", emfAgent},
		{directory + "cloudwatch/alarms.cfn.json", func() ([]byte, error) { return alarms(runbooks) }},
		{directory + "cloudwatch/dashboard.json", func() ([]byte, error) { return indented(queueDashboard()) }},
	}
}

func write(root, runbooks string) error {
	for _, o := range outputs(root, runbooks) {
		text, err := o.make()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, o.path), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// listed is a query of a panel, for programs that ask Prometheus for it.
type listed struct {
	Row   string `json:"row"`
	Panel string `json:"panel"`
	Expr  string `json:"expr"`
}

func panelList() []listed {
	var all []listed
	for _, r := range rows {
		for _, p := range r.panels {
			for _, q := range p.queries {
				all = append(all, listed{r.title, p.title, q.expr})
			}
		}
	}
	return all
}

// indented returns v as JSON for people: without escapes for <, > and &.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// templated are the types of resources in the templates under deploy/.
var templated = []string{
	"AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard",
	"AWS::IAM::InstanceProfile", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role",
	"AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SQS::QueuePolicy",
}

// extract writes the schemas that templates are checked against. The specification is
// db.json.gz of npm's @aws-cdk/aws-service-spec, in the version named here.
func extract(root, specification string) error {
	f, err := os.Open(specification)
	if err != nil {
		return err
	}
	defer f.Close()
	schema, err := cloudformation.Extract(f, templated...)
	if err != nil {
		return err
	}
	schema.Source, schema.License = "npm @aws-cdk/aws-service-spec 0.1.216, db.json.gz", "Apache-2.0"
	text, err := indented(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, directory, "cloudformation", "testdata", "schemas.json"), text, 0o644)
}
