package main

import "strings"

// moment is what Prometheus has scraped, a sample a minute, and what an alert says at one
// time. An alert without want is silent.
type moment struct {
	at     string
	series map[string]string // in promtool's notation: -1+2x3 is -1, 1, 3, 5
	want   []expected
}

type expected struct {
	labels  map[string]string // besides the host's
	summary string
}

// says expects one alert with the summary, and with labels in pairs.
func says(summary string, labels ...string) []expected {
	e := expected{map[string]string{}, summary}
	for i := 0; i < len(labels); i += 2 {
		e.labels[labels[i]] = labels[i+1]
	}
	return []expected{e}
}

// on returns a series of host "a".
func on(metric string, labels ...string) string {
	all := append([]string{`job="imagemanager"`, `instance="a"`}, labels...)
	return metric + "{" + strings.Join(all, ",") + "}"
}

func ours(metric string, labels ...string) string { return on("imagemanager_"+metric, labels...) }

// moreCases has the other reasons for which alerts fire.
var moreCases = map[string]moment{
	"LeaseLost": {
		"5m",
		map[string]string{ours("queue_messages_lost_total"): "0x5", ours("queue_messages_capped_total"): "0x4 1"},
		says("a lost the lease of a message that it worked on"),
	},
	"Leak": {
		"30m",
		map[string]string{ours("unclaimed", `kind="mount"`): "0x30", ours("reconcile_problems"): "2x30"},
		says("a: something is left that a reconcile does not repair"),
	},
	"PoolBroken": {
		"1m",
		map[string]string{ours("pool_mode", `mode="read_only"`): "0x1", ours("pool_needs_check"): "1x1"},
		says("a: the pool is not writable, or needs a check"),
	},
	"PoolDataFilling": {
		"60m", pool("data", "51+0.1x60", "0.1"), says("a: the pool's data will soon be full"),
	},
}

// ruleCases has a moment for every alert at which it fires, and one at which it is near
// that, but silent.
var ruleCases = map[string]struct{ fires, silent moment }{
	"Down": {
		moment{"5m", map[string]string{on("up"): "0x5"}, says("a does not answer /metrics")},
		moment{"9m", map[string]string{on("up"): "0x4 1 0x4"}, nil},
	},
	"Restarting": {
		moment{
			"10m",
			map[string]string{on("process_start_time_seconds"): "1x2 2x2 3x2 4x2", ours("ready"): "1x12"},
			says("a was started 3 times in an hour"),
		},
		moment{"10m", map[string]string{on("process_start_time_seconds"): "1x2 2x2 3x5", ours("ready"): "1x12"}, nil},
	},
	"NotReady": {
		moment{
			"5m",
			map[string]string{
				ours("condition_active", `condition="disk_low"`): "1x5",
				ours("condition_active", `condition="database"`): "0x5",
			},
			says("a takes no work: disk_low", "condition", "disk_low"),
		},
		moment{"40m", map[string]string{ours("condition_active", `condition="recovering"`): "1x40"}, nil},
	},
	"SlowStart": {
		moment{
			"45m",
			map[string]string{ours("condition_active", `condition="recovering"`): "1x45"},
			says("a has been recovering for 45 minutes", "condition", "recovering"),
		},
		moment{"44m", map[string]string{ours("condition_active", `condition="recovering"`): "1x44"}, nil},
	},
	"ReceiveFailing": {
		moment{
			"10m",
			map[string]string{
				ours("queue_receives_total", `result="failed"`):   "0+3x10",
				ours("queue_receives_total", `result="messages"`): "7x10",
				ours("queue_receives_total", `result="empty"`):    "7x10",
			},
			says("a cannot receive messages"),
		},
		moment{"10m", map[string]string{
			ours("queue_receives_total", `result="failed"`):   "0+3x10",
			ours("queue_receives_total", `result="messages"`): "7x10",
			ours("queue_receives_total", `result="empty"`):    "0+1x10",
		}, nil},
	},
	"FallingBehind": {
		moment{
			"30m",
			map[string]string{
				ours("queue_message_lag_seconds_bucket", `le="900"`):  "0+8x30",
				ours("queue_message_lag_seconds_bucket", `le="3600"`): "0+10x30",
				ours("queue_message_lag_seconds_bucket", `le="+Inf"`): "0+10x30",
			},
			says("a receives messages that are 37m 30s old"),
		},
		moment{"30m", map[string]string{
			ours("queue_message_lag_seconds_bucket", `le="900"`):  "0+10x30",
			ours("queue_message_lag_seconds_bucket", `le="3600"`): "0+10x30",
			ours("queue_message_lag_seconds_bucket", `le="+Inf"`): "0+10x30",
		}, nil},
	},
	"Stuck": {
		moment{
			"90m",
			map[string]string{
				ours("stage_workers", `stage="unpack"`, `state="busy"`):    "1x90",
				ours("stage_workers", `stage="download"`, `state="idle"`):  "5x90",
				ours("jobs_total", `outcome="active"`):                     "3x90",
				ours("stage_workers", `stage="unpack"`, `state="blocked"`): "0x90",
			},
			says("a works, and has ended no job for 45 minutes"),
		},
		moment{"200m", map[string]string{ // idle for long, then a job of 44 minutes
			ours("stage_workers", `stage="unpack"`, `state="busy"`): "0x155 1x44",
			ours("stage_workers", `stage="unpack"`, `state="idle"`): "2x155 1x44",
			ours("jobs_total", `outcome="active"`):                  "3x200",
		}, nil},
	},
	"LeaseLost": {
		moment{
			"5m",
			map[string]string{ours("queue_messages_lost_total"): "0x4 1", ours("queue_messages_capped_total"): "0x5"},
			says("a lost the lease of a message that it worked on"),
		},
		moment{"5m", map[string]string{
			ours("queue_messages_lost_total"): "1x5", ours("queue_messages_capped_total"): "0x5",
		}, nil},
	},
	"HeartbeatThin": {
		moment{
			"25m",
			map[string]string{
				ours("queue_heartbeat_margin_seconds_bucket", `le="0"`):    "0x25",
				ours("queue_heartbeat_margin_seconds_bucket", `le="5"`):    "0+1x25",
				ours("queue_heartbeat_margin_seconds_bucket", `le="+Inf"`): "0+10x25",
			},
			says("a extends leases 500ms before they end"),
		},
		moment{"25m", map[string]string{
			ours("queue_heartbeat_margin_seconds_bucket", `le="0"`):    "0x25",
			ours("queue_heartbeat_margin_seconds_bucket", `le="5"`):    "0x25",
			ours("queue_heartbeat_margin_seconds_bucket", `le="30"`):   "0+10x25",
			ours("queue_heartbeat_margin_seconds_bucket", `le="+Inf"`): "0+10x25",
		}, nil},
	},
	"SecurityViolation": {
		moment{
			"1m",
			map[string]string{
				ours("security_violations_total", `rule="dotdot_name"`): "0 1",
				ours("security_violations_total", `rule="other"`):       "0 0",
			},
			says("a refused an archive as an attack: dotdot_name", "rule", "dotdot_name"),
		},
		moment{"30m", map[string]string{ours("security_violations_total", `rule="dotdot_name"`): "0 1x29"}, nil},
	},
	"Retrying": {
		moment{
			"30m",
			map[string]string{
				ours("stage_failures_total", `stage="download"`, `verdict="retry"`, `reason="denied"`): "0+1x30",
			},
			says("a retries download: denied", "stage", "download", "verdict", "retry", "reason", "denied"),
		},
		moment{"30m", map[string]string{
			ours("stage_failures_total", `stage="download"`, `verdict="retry"`, `reason="denied"`):  "0 1x29",
			ours("stage_failures_total", `stage="unpack"`, `verdict="rejected"`, `reason="limits"`): "0+1x30",
		}, nil},
	},
	"DeadLetters": {
		moment{
			"2m",
			map[string]string{ours("queue_messages_settled_total", `outcome="dead_lettered"`): "0 0 1"},
			says("a gave messages up", "outcome", "dead_lettered"),
		},
		moment{"2m", map[string]string{
			ours("queue_messages_settled_total", `outcome="dead_lettered"`): "1 1 1",
			ours("queue_messages_settled_total", `outcome="deleted"`):       "0 1 2",
		}, nil},
	},
	"PoolDataFilling": {
		moment{"15m", pool("data", "86x15", "0.1"), says("a: the pool's data will soon be full")},
		moment{"15m", pool("data", "84x15", "0.1"), nil},
	},
	"PoolMetadataFilling": {
		// Half full, and full in less than a day at this rate.
		moment{"60m", pool("metadata", "51+0.1x60", "0.25"), says("a: the pool's metadata will soon be full")},
		moment{"60m", pool("metadata", "1+0.1x60", "0.25"), nil},
	},
	"PoolBroken": {
		moment{
			"1m",
			map[string]string{
				ours("pool_mode", `mode="read_write"`): "0x1", ours("pool_mode", `mode="read_only"`): "1x1",
				ours("pool_needs_check"): "0x1",
			},
			says("a: the pool is not writable, or needs a check", "mode", "read_only"),
		},
		moment{"1m", map[string]string{
			ours("pool_mode", `mode="read_write"`): "1x1", ours("pool_mode", `mode="read_only"`): "0x1",
			ours("pool_needs_check"): "0x1",
		}, nil},
	},
	"DiskFilling": {
		moment{
			"15m",
			map[string]string{
				ours("disk_free_bytes", `path="state"`):    "1610612736x15",
				ours("disk_reserve_bytes", `path="state"`): "1073741824x15",
			},
			says("a: 1.5GiB are free under state", "path", "state"),
		},
		moment{"15m", map[string]string{
			ours("disk_free_bytes", `path="state"`):    "2147483648x15",
			ours("disk_reserve_bytes", `path="state"`): "1073741824x15",
		}, nil},
	},
	"Leak": {
		moment{
			"30m",
			map[string]string{ours("unclaimed", `kind="mount"`): "1x30", ours("reconcile_problems"): "0x30"},
			says("a: something is left that a reconcile does not repair", "kind", "mount"),
		},
		moment{"30m", map[string]string{
			ours("unclaimed", `kind="mount"`): "1x20 0x10", ours("reconcile_problems"): "0x30",
		}, nil},
	},
	"ReconcileStale": {
		moment{
			"85m",
			map[string]string{ours("reconcile_last_success_timestamp_seconds"): "600x85"},
			says("a: no reconcile has succeeded for 1h 15m 0s"),
		},
		moment{"85m", map[string]string{ours("reconcile_last_success_timestamp_seconds"): "600x75 4500x10"}, nil},
	},
	"DatabaseSlow": {
		moment{
			"35m",
			map[string]string{
				ours("store_transaction_duration_seconds_bucket", `le="0.1"`):  "0+9x35",
				ours("store_transaction_duration_seconds_bucket", `le="0.5"`):  "0+10x35",
				ours("store_transaction_duration_seconds_bucket", `le="+Inf"`): "0+10x35",
			},
			says("a: one in a hundred transactions takes 460ms"),
		},
		moment{"35m", map[string]string{
			ours("store_transaction_duration_seconds_bucket", `le="0.1"`):  "0+10x35",
			ours("store_transaction_duration_seconds_bucket", `le="0.5"`):  "0+10x35",
			ours("store_transaction_duration_seconds_bucket", `le="+Inf"`): "0+10x35",
		}, nil},
	},
}

// pool returns the series of one space of a pool of 100 bytes.
func pool(space, used, reserve string) map[string]string {
	return map[string]string{
		ours("pool_" + space + "_used_bytes"):    used,
		ours("pool_" + space + "_size_bytes"):    "100x60",
		ours("pool_" + space + "_reserve_ratio"): reserve + "x60",
	}
}
