package cloudformation

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func schema(t *testing.T) *Schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "schemas.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// good is a template without a fault. Each case of TestPlantedFaults breaks one thing.
const good = `{
  "AWSTemplateFormatVersion": "2010-09-09",
  "Parameters": {"Queue": {"Type": "String"}, "Topic": {"Type": "String", "Default": ""}},
  "Conditions": {"HasTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Topic"}, ""]}]}},
  "Resources": {
    "Classic": {"Type": "AWS::CloudWatch::Alarm", "Condition": "HasTopic", "Properties": {
      "AlarmName": {"Fn::Sub": "${AWS::StackName}-${Queue}"},
      "AlarmActions": {"Fn::If": ["HasTopic", [{"Ref": "Topic"}], {"Ref": "AWS::NoValue"}]},
      "EvaluationPeriods": 3, "Threshold": 0.5, "ActionsEnabled": true,
      "Dimensions": [{"Name": "QueueName", "Value": {"Ref": "Queue"}}],
      "Tags": [{"Key": "severity", "Value": "critical"}]}},
    "Prom": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"EvaluationInterval": 60,
      "EvaluationCriteria": {"PromQLCriteria": {"Query": "up == 0", "PendingPeriod": 300}}}},
    "Board": {"Type": "AWS::CloudWatch::Dashboard", "Properties": {
      "DashboardBody": {"Fn::Sub": "{\"a\": \"${Classic.Arn} ${Queue} ${!Literal}\"}"}}},
    "Store": {"Type": "AWS::S3::Bucket", "DependsOn": "Policy", "Properties": {"BucketName": "b",
      "AbacStatus": "Enabled"}},
    "Policy": {"Type": "AWS::SQS::QueuePolicy", "Properties": {"Queues": [{"Ref": "Line"}],
      "PolicyDocument": {"Resource": {"Fn::GetAtt": ["Line", "Arn"]}, "Bucket": "arn:aws:s3:::b"}}},
    "Line": {"Type": "AWS::SQS::Queue"}
  }}`

func TestGoodTemplate(t *testing.T) {
	if faults, err := schema(t).Check([]byte(good)); err != nil || len(faults) > 0 {
		t.Errorf("%v, %q", err, faults)
	}
}

func TestPlantedFaults(t *testing.T) {
	const promql = "Prom.EvaluationCriteria.PromQLCriteria"
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown section", `"Conditions"`, `"Condition"`, "the template: unknown key Condition"},
		{"unknown type", "::Dashboard", "::Board", `Board: unknown type "AWS::CloudWatch::Board"`},
		{"unknown key of a resource", `"Condition":`, `"Conditional":`, "Classic: unknown key Conditional"},
		{"unknown property", "EvaluationInterval", "Interval", "Prom: unknown property Interval"},
		{"unknown nested property", "PendingPeriod", "Pending", promql + ": unknown property Pending"},
		{"missing required", `"DashboardBody"`, `"DashboardName"`, "Board: DashboardBody is missing"},
		{"missing in a dimension", `"Name": "QueueName", `, "", "Classic.Dimensions[0]: Name is missing"},
		{"missing in a tag", `, "Value": "critical"`, "", "Classic.Tags[0]: Value is missing"},
		{"string for integer", ": 60", `: "60"`, "Prom.EvaluationInterval: want integer, have 60"},
		{"fraction for integer", ": 60", `: 60.5`, "Prom.EvaluationInterval: want integer, have 60.5"},
		{"string for number", "0.5", `"0.5"`, "Classic.Threshold: want number, have 0.5"},
		{"string for boolean", "true", `"true"`, "Classic.ActionsEnabled: want boolean, have true"},
		{"number for string", `"up == 0"`, "0", promql + ".Query: want string, have 0"},
		{"text for array", `[{"Ref": "Topic"}], {`, `"arn", {`, "Classic.AlarmActions: want array, have arn"},
		{"text for object", `{"Query": "up == 0", "PendingPeriod": 300}`, `"up"`, promql + ": want object, have up"},
		{"dangling Ref", `{"Ref": "Queue"}`, `{"Ref": "Queues"}`, "Dimensions[0].Value: there is no Queues"},
		{"dangling Sub", "-${Queue}", "-${Queues}", "Classic.Properties.AlarmName: there is no Queues"},
		{"unknown attribute", "Classic.Arn", "Classic.Url", "AWS::CloudWatch::Alarm has no attribute Url"},
		{"dangling condition", `: "HasTopic"`, `: "Topic"`, "Classic: there is no condition Topic"},
		{"dangling condition of If", `["HasTopic"`, `["Topic"`, "AlarmActions: there is no condition Topic"},
		{"dangling GetAtt", `["Line", "Arn"]`, `["Lines", "Arn"]`, "PolicyDocument.Resource: there is no Lines.Arn"},
		{"value not allowed", `"Enabled"`, `"On"`, "Store.AbacStatus: want one of [Enabled Disabled], have On"},
		{
			"circle by DependsOn", `"arn:aws:s3:::b"`, `{"Fn::GetAtt": ["Store", "Arn"]}`,
			"Policy: is needed by itself: Policy, Store, Policy",
		},
		{
			"circle by Sub", `"Line": {"Type": "AWS::SQS::Queue"}`,
			`"Line": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "a-${Policy}"}}}`,
			"Line: is needed by itself: Line, Policy, Line",
		},
		{"unknown function", `"Fn::Sub"`, `"Fn::Subst"`, "AlarmName: Fn::Subst in a form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := strings.Replace(good, c.old, c.new, 1)
			faults, err := schema(t).Check([]byte(broken))
			if broken == good || err != nil || !strings.Contains(strings.Join(faults, "\n"), c.want) {
				t.Errorf("want %q, have %q, %v", c.want, faults, err)
			}
		})
	}
}

func TestNotJSON(t *testing.T) {
	if _, err := schema(t).Check([]byte("Resources:")); err == nil {
		t.Error("YAML was taken for JSON")
	}
}

// Every template below deploy/ is checked: a further one needs no test of its own.
func TestTemplates(t *testing.T) {
	found := 0
	for _, pattern := range []string{"../../*.cfn.json", "../../*/*.cfn.json", "../../*/*/*.cfn.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			found++
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			faults, err := schema(t).Check(text)
			if err != nil || len(faults) > 0 {
				t.Errorf("%s: %v\n%s", f, err, strings.Join(faults, "\n"))
			}
		}
	}
	if found == 0 {
		t.Error("no template found")
	}
}

const smallDatabase = `{"schema": {
  "resource": {"entities": [
    {"cloudFormationType": "A::B::C", "attributes": {"Arn": {"type": {"type": "string"}}},
     "properties": {"P": {"required": true, "type": {"type": "array", "element":
       {"type": "ref", "reference": {"$ref": "7"}}}}}},
    {"cloudFormationType": "A::B::D", "properties": {}}]},
  "typeDefinition": {"entities": [
    {"$id": "7", "properties": {"Q": {"type": {"type": "union", "types": [
      {"type": "ref", "reference": {"$ref": "8"}}, {"type": "string"}]}}}},
    {"$id": "8", "properties": {"R": {"type": {"type": "ref", "reference": {"$ref": "7"}}}}},
    {"$id": "9", "properties": {}}]}}}`

func TestExtract(t *testing.T) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write([]byte(smallDatabase)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Extract(bytes.NewReader(zipped.Bytes()), "A::B::C")
	if err != nil {
		t.Fatal(err)
	}
	to := func(id string) *Type { return &Type{Type: "ref", Reference: &Reference{id}} }
	want := &Schema{
		Resources: map[string]Resource{"A::B::C": {
			Properties: Properties{"P": {Required: true, Type: Type{Type: "array", Element: to("7")}}},
			Attributes: []string{"Arn"},
		}},
		Definitions: map[string]Properties{
			"7": {"Q": {Type: Type{Type: "union", Types: []Type{*to("8"), {Type: "string"}}}}},
			"8": {"R": {Type: *to("7")}},
		},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("have %+v\nwant %+v", s, want)
	}
	if _, err := Extract(bytes.NewReader(zipped.Bytes()), "A::B::E"); err == nil {
		t.Error("a type that does not exist was extracted")
	}
}
