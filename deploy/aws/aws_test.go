package aws

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files instead of comparing")

// same compares a text with a file from the top of the repository, or writes the file.
func same(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join("..", "..", path)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != text {
		t.Errorf("%s is out of date (%v): run `make docs`", path, err)
	}
}

func indented(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// page is the policy for people: they put in their own names.
func page(t *testing.T) string {
	t.Helper()
	return indented(t, Policy(map[Place]any{
		Objects: "arn:aws:s3:::BUCKET/images/*", Bucket: "arn:aws:s3:::BUCKET",
		Queue:           "arn:aws:sqs:REGION:ACCOUNT:images",
		DeadLetterQueue: "arn:aws:sqs:REGION:ACCOUNT:images-dlq",
	}))
}

func TestPagePolicy(t *testing.T) { same(t, "deploy/aws/policy.json", page(t)) }

// CloudFormation takes a template of this size from a file (user guide, "Understand
// CloudFormation quotas").
const maxTemplate = 51_200

func TestPageTemplate(t *testing.T) {
	text := indented(t, Template())
	if len(text) > maxTemplate {
		t.Errorf("%d bytes: such a template cannot be given to CloudFormation without a bucket", len(text))
	}
	same(t, "deploy/aws/consumer.cfn.json", text)
}

// The template makes what localstack/setup.sh makes.
func TestSameAsSetup(t *testing.T) {
	setup := exec.CommandContext(t.Context(), filepath.Join("..", "..", "localstack", "setup.sh"), "--bucket", "b-b",
		"--dry-run")
	out, err := setup.Output()
	if err != nil {
		t.Fatal(err)
	}
	of := func(resource object) object { return resource["Properties"].(object) }
	main, dead, given := of(queueResource()), of(deadLetterResource()), parameters()
	for _, want := range []string{
		fmt.Sprintf(`{"VisibilityTimeout":"%v","MessageRetentionPeriod":"%v","ReceiveMessageWaitTimeSeconds":"%v"`,
			main["VisibilityTimeout"], main["MessageRetentionPeriod"], main["ReceiveMessageWaitTimeSeconds"]),
		fmt.Sprintf(`\"maxReceiveCount\":%v`, main["RedrivePolicy"].(object)["maxReceiveCount"]),
		fmt.Sprintf(`'{"MessageRetentionPeriod":"%v"}'`, dead["MessageRetentionPeriod"]),
		fmt.Sprintf(`{"Name":"prefix","Value":"%v"},{"Name":"suffix","Value":"%v"}`,
			given[prefix].(object)["Default"], given[suffix].(object)["Default"]),
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("setup.sh does not set %s:\n%s", want, out)
		}
	}
}

// The page of deployment has the policy and what each right is for between these lines.
const (
	rightsBegin = "<!-- The rights: made by `make docs` from deploy/aws/rights.go. -->\n"
	rightsEnd   = "<!-- End of the rights. -->\n"
)

func TestPageOfRights(t *testing.T) {
	const path = "docs/deployment.md"
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), rightsBegin)
	_, after, closed := strings.Cut(rest, rightsEnd)
	if !found || !closed {
		t.Fatalf("%s does not have the lines around the rights", path)
	}
	same(t, path, before+rightsBegin+"\n```json\n"+page(t)+"```\n\n"+table()+"\n"+rightsEnd+after)
}

// table has a row for each right.
func table() string {
	var b strings.Builder
	b.WriteString("| right | on | used by | for |\n|---|---|---|---|\n")
	on := map[Place]string{
		Objects: "objects", Bucket: "bucket", Queue: "queue", DeadLetterQueue: "dead-letter queue",
	}
	for _, r := range Rights {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", r.Action, on[r.On], strings.Join(r.Callers, "`, `"), r.Reason)
	}
	return b.String()
}

// No right is there twice, and each has a caller.
func TestRights(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rights {
		key := r.Action + string(r.On)
		if seen[key] || len(r.Callers) == 0 || strings.Contains(r.Action, "*") {
			t.Errorf("%+v: twice, without a caller, or more than one action", r)
		}
		seen[key] = true
	}
}
