package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	evaluation = time.Minute     // how often CloudWatch asks
	recovery   = 5 * time.Minute // how long an alarm must be silent
)

// alarms returns the template of CloudWatch's alarms and dashboard: those from PromQL, if
// the agent sends metrics, and those of the queues, which need no agent.
func alarms(runbooks string) ([]byte, error) {
	body, err := json.Marshal(queueDashboard())
	if err != nil {
		return nil, err
	}
	resources := object{
		"QueueOldestMessage": queueAlarm("QueueOldestMessage", "QueueName", "", "ApproximateAgeOfOldestMessage", 900,
			"A message waits for more than 15 minutes: no host takes it, or there are too few. "+
				runbooks+"#imagemanagerfallingbehind"),
		"QueueDeadLetter": queueAlarm("QueueDeadLetter", "DeadLetterQueueName", "HasDeadLetterQueue",
			"ApproximateNumberOfMessagesVisible", 0,
			"There are messages in the dead-letter queue. "+runbooks+"#imagemanagerdeadletters"),
		"Dashboard": object{"Type": "AWS::CloudWatch::Dashboard", "Properties": object{
			"DashboardName": sub("${AWS::StackName}"),
			"DashboardBody": sub(string(body)),
		}},
	}
	for _, a := range alerts {
		if resources[a.name], err = a.alarm(runbooks); err != nil {
			return nil, err
		}
	}
	return indented(object{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Description":              "Container Image Manager: alarms and a dashboard. Made by `make observe`.",
		"Parameters":               parameters,
		"Conditions": object{
			"HasAgent":           object{"Fn::Equals": []any{ref("Agent"), "yes"}},
			"HasTopic":           isSet("AlarmTopicArn"),
			"HasDeadLetterQueue": isSet("DeadLetterQueueName"),
		},
		"Resources": resources,
	})
}

// unset is the value of a parameter that is not given. The empty text would make the
// dashboard invalid.
const unset = "none"

var parameters = object{
	"QueueName":           parameter("Name of the queue with the bucket's notifications.", nil),
	"DeadLetterQueueName": parameter("Name of the dead-letter queue, if there is one.", unset),
	"AlarmTopicArn":       parameter("SNS topic that alarms are sent to, if there is one.", unset),
	"Agent": object{
		"Type": "String", "Default": "yes", "AllowedValues": []string{"yes", "no"},
		"Description": "Whether a CloudWatch agent sends the program's metrics to the OTLP endpoint (agent.json).",
	},
}

func parameter(description string, value any) object {
	p := object{"Type": "String", "Description": description}
	if value != nil {
		p["Default"] = value
	}
	return p
}

// alarm returns the alert as an alarm with the same expression.
func (a alert) alarm(runbooks string) (object, error) {
	expr := a.expr
	if a.cloudWatch != "" {
		expr = a.cloudWatch
	}
	native, err := inCloudWatch(expr)
	if err != nil {
		return nil, fmt.Errorf("alert %s: %w", a.name, err)
	}
	return resource(a.name, "HasAgent", a.severity, a.meaning+" "+a.runbook(runbooks), object{
		"EvaluationInterval": int(evaluation.Seconds()),
		"EvaluationCriteria": object{"PromQLCriteria": object{
			"Query":          native,
			"PendingPeriod":  int(a.pending.Seconds()),
			"RecoveryPeriod": int(recovery.Seconds()),
		}},
	}), nil
}

// queueAlarm returns an alarm on a metric that SQS keeps itself, above the limit for a
// quarter of an hour. Queue is the parameter with the queue's name.
func queueAlarm(name, queue, condition, metric string, limit float64, description string) object {
	return resource(name, condition, warning, description, object{
		"Namespace": "AWS/SQS", "MetricName": metric, "Statistic": "Maximum",
		"Dimensions": []object{{"Name": "QueueName", "Value": ref(queue)}},
		"Period":     300, "EvaluationPeriods": 3, "Threshold": limit,
		"ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching",
	})
}

func resource(name, condition string, s severity, description string, properties object) object {
	actions := object{"Fn::If": []any{"HasTopic", []object{ref("AlarmTopicArn")}, ref("AWS::NoValue")}}
	properties["AlarmName"] = sub("${AWS::StackName}-" + name)
	properties["AlarmDescription"] = description
	properties["AlarmActions"], properties["OKActions"] = actions, actions
	properties["Tags"] = []object{{"Key": "severity", "Value": string(s)}}
	r := object{"Type": "AWS::CloudWatch::Alarm", "Properties": properties}
	if condition != "" {
		r["Condition"] = condition
	}
	return r
}

func ref(name string) object { return object{"Ref": name} }
func sub(text string) object { return object{"Fn::Sub": text} }
func isSet(name string) object {
	return object{"Fn::Not": []any{object{"Fn::Equals": []any{ref(name), unset}}}}
}

// queueDashboard returns the body of CloudWatch's dashboard: the queues, by metrics of
// SQS, and the alarms. ${…} are filled in by the template. PromQL is left out: the format
// of its widget is not documented.
func queueDashboard() object {
	metric := func(x int, title, metric, stat string, queues ...string) object {
		var series [][]string
		for _, q := range queues {
			series = append(series, []string{"AWS/SQS", metric, "QueueName", "${" + q + "}"})
		}
		return widget("metric", x, 0, 8, object{
			"title": title, "metrics": series, "stat": stat, "period": 300, "region": "${AWS::Region}",
		})
	}
	return object{"widgets": []object{
		metric(0, "Messages waiting", "ApproximateNumberOfMessagesVisible", "Maximum", "QueueName", ""+
			"DeadLetterQueueName"),
		metric(8, "Age of the oldest message", "ApproximateAgeOfOldestMessage", "Maximum", "QueueName"),
		metric(16, "Messages in flight", "ApproximateNumberOfMessagesNotVisible", "Maximum", "QueueName"),
		widget("alarm", 0, 6, 24, object{"title": "Alarms", "alarms": alarmARNs()}),
	}}
}

func widget(kind string, x, y, width int, properties object) object {
	return object{"type": kind, "x": x, "y": y, "width": width, "height": 6, "properties": properties}
}

// alarmARNs returns the alarms by their names: those that a condition leaves out cannot
// be referred to.
func alarmARNs() []string {
	names := []string{"QueueOldestMessage", "QueueDeadLetter"}
	for _, a := range alerts {
		names = append(names, a.name)
	}
	for i, name := range names {
		names[i] = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:${AWS::StackName}-" + name
	}
	return names
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
