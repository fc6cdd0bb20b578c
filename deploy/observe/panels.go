package main

import (
	"fmt"
	"strings"
)

// drawing is how a panel shows its values.
type drawing int

const (
	lines drawing = iota
	stacked
	number // the last value, large
	states // a bar over time for each series, red while it is 1
)

// row is a row of the dashboard.
type row struct {
	title  string
	panels []panel
}

// panel is a panel of the dashboard. Every query returns data while the program runs,
// whether or not anything happens.
type panel struct {
	title   string
	unit    string // as Grafana calls it
	draw    drawing
	limit   float64 // what is above is red; 0 is no limit
	queries []query
}

// query is an expression in PromQL, and the name of its series, with {{label}} for the
// value of a label. Rates are over five minutes, which suits intervals of scraping up to
// a minute.
type query struct {
	expr   string
	legend string
}

func one(expr, legend string) []query { return []query{{expr, legend}} }

// quantile returns the q-quantile of a histogram, for each set of the labels in by.
func quantile(q float64, by, buckets string) string {
	return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (rate(imagemanager_%s[5m])))",
		q, strings.TrimSuffix("le, "+by, ", "), buckets)
}

// rows are the whole dashboard.
var rows = []row{healthRow, queueRow, stagesRow, poolRow, runtimeRow}

var healthRow = row{"Health", []panel{
	{title: "Hosts that take no work", draw: states, queries: one(`1 - imagemanager_ready`, "{{instance}}")},
	{title: "Conditions that stop intake", draw: states, queries: one(
		`max by (condition) (imagemanager_condition_active)`, "{{condition}}")},
	{title: "Images by state", draw: stacked, queries: one(
		`sum by (state) (imagemanager_images)`, "{{state}}")},
	{title: "Jobs ended", unit: "ops", draw: stacked, queries: one(
		`sum by (outcome) (rate(imagemanager_jobs_total[5m]))`, "{{outcome}}")},
	{title: "Attacks refused, 24 h", draw: number, limit: 1, queries: one(
		`sum(increase(imagemanager_security_violations_total[24h]))`, "attacks")},
	{title: "Resources without an owner, and repairs that failed", limit: 1, queries: []query{
		{`sum by (kind) (imagemanager_unclaimed)`, "{{kind}}"},
		{`sum(imagemanager_reconcile_problems)`, "not repaired"},
	}},
	{title: "Hosts by version", queries: one(
		`count by (version, revision) (imagemanager_build_info)`, "{{version}} {{revision}}")},
}}

var queueRow = row{"Queue", []panel{
	{title: "Messages in SQS", queries: one(
		`max by (queue, state) (imagemanager_queue_depth_messages)`, "{{queue}} {{state}}")},
	{title: "Age of a message at its first receipt", unit: "s", limit: 900, queries: []query{
		{quantile(0.5, "", `queue_message_lag_seconds_bucket`), "p50"},
		{quantile(0.9, "", `queue_message_lag_seconds_bucket`), "p90"},
	}},
	{title: "Messages received and settled", unit: "ops", queries: []query{
		{`sum(rate(imagemanager_queue_messages_received_total[5m]))`, "received"},
		{`sum by (outcome) (rate(imagemanager_queue_messages_settled_total[5m]))`, "{{outcome}}"},
	}},
	{title: "Messages held", queries: []query{
		{`sum(imagemanager_queue_messages_held)`, "held"},
		{`sum(imagemanager_queue_permits)`, "at most"},
	}},
	{title: "Lease left at its extension, p1", unit: "s", queries: one(
		quantile(0.01, "", `queue_heartbeat_margin_seconds_bucket`), "left")},
	{title: "Leases lost, calls repeated", unit: "ops", queries: []query{
		{`sum(rate(imagemanager_queue_messages_lost_total[5m]))`, "lost"},
		{`sum(rate(imagemanager_queue_messages_capped_total[5m]))`, "held for 12 h"},
		{`sum by (operation) (rate(imagemanager_queue_call_retries_total[5m]))`, "{{operation}} again"},
	}},
}}

// workers is the panel of one stage: its workers add up to the line.
func workers(stage string) panel {
	return panel{title: "Workers: " + stage, draw: stacked, queries: []query{
		{`sum by (state) (imagemanager_stage_workers{stage="` + stage + `"})`, "{{state}}"},
		{`sum(imagemanager_stage_capacity{stage="` + stage + `"})`, "capacity"},
	}}
}

var stagesRow = row{"Stages", []panel{
	workers("download"), workers("unpack"), workers("activate"),
	{title: "Duration", unit: "s", queries: []query{
		{
			quantile(0.5, "stage", `stage_duration_seconds_bucket{outcome="done"}`),
			"{{stage}} p50",
		},
		{
			quantile(0.99, "stage", `stage_duration_seconds_bucket{outcome="done"}`),
			"{{stage}} p99",
		},
	}},
	{title: "Throughput", unit: "Bps", queries: one(
		`sum by (stage) (rate(imagemanager_stage_bytes_total[5m]))`, "{{stage}}")},
	{title: "Failures, the ten most frequent", unit: "ops", queries: one(
		`topk(10, sum by (stage, verdict, reason) (rate(imagemanager_stage_failures_total[5m])))`,
		"{{stage}} {{verdict}} {{reason}}")},
	{title: "Workers by step of the unpack", draw: stacked, queries: one(
		`sum by (step) (rate(imagemanager_unpack_step_duration_seconds_sum[5m]))`, "{{step}}")},
}}

var poolRow = row{"Pool and disk", []panel{
	{title: "Pool data in use", unit: "percentunit", queries: []query{
		{`imagemanager_pool_data_used_bytes / imagemanager_pool_data_size_bytes`, "{{instance}}"},
		{`1 - imagemanager_pool_data_reserve_ratio`, "{{instance}}: intake pauses"},
	}},
	{title: "Pool metadata in use", unit: "percentunit", queries: []query{
		{`imagemanager_pool_metadata_used_bytes / imagemanager_pool_metadata_size_bytes`, "{{instance}}"},
		{`1 - imagemanager_pool_metadata_reserve_ratio`, "{{instance}}: intake pauses"},
	}},
	{title: "Time until intake pauses, at the rate of the last 6 h", unit: "d", queries: one(
		`clamp_max((imagemanager_pool_data_size_bytes * (1 - imagemanager_pool_data_reserve_ratio)`+
			` - imagemanager_pool_data_used_bytes)`+
			` / clamp_min(deriv(imagemanager_pool_data_used_bytes[6h]), 1) / 86400, 365)`, "{{instance}}")},
	{title: "Thin devices", draw: stacked, queries: one(
		`sum by (kind, state) (imagemanager_devices)`, "{{kind}} {{state}}")},
	{title: "Free disk", unit: "bytes", queries: []query{
		{`imagemanager_disk_free_bytes`, "{{instance}} {{path}}"},
		{`imagemanager_disk_reserve_bytes`, "{{instance}} {{path}}: intake pauses"},
	}},
	{title: "Device-mapper calls, p99", unit: "s", queries: one(
		quantile(0.99, "command", `dm_ioctl_duration_seconds_bucket`),
		"{{command}}")},
}}

var runtimeRow = row{"Runtime", []panel{
	{title: "Database transactions, p99", unit: "s", limit: 0.1, queries: one(
		quantile(0.99, "instance", `store_transaction_duration_seconds_bucket`),
		"{{instance}}")},
	{title: "AWS calls but long polls, p99", unit: "s", queries: one(
		quantile(0.99, "service, operation", `aws_client_call_duration_seconds_bucket{operation!="ReceiveMessage"}`),
		"{{service}} {{operation}}")},
	{title: "AWS calls by result", unit: "ops", queries: one(
		`sum by (service, result) (rate(imagemanager_aws_client_calls_total[5m]))`, "{{service}} {{result}}")},
	{title: "Memory", unit: "bytes", queries: one(`process_resident_memory_bytes`, "{{instance}}")},
	{title: "CPU", unit: "percentunit", queries: one(`rate(process_cpu_seconds_total[5m])`, "{{instance}}")},
	{title: "Goroutines and open files", queries: []query{
		{`go_goroutines`, "{{instance}} goroutines"},
		{`process_open_fds`, "{{instance}} files"},
	}},
}}
