package main

import (
	"slices"
	"strings"
	"time"
)

// severity says how soon somebody must look.
type severity string

const (
	critical severity = "critical" // at once
	warning  severity = "warning"  // within the day
)

// alert is a rule of Prometheus, an alarm of CloudWatch, and a section of the runbooks.
//
// Expressions aggregate with `without`, not `by`: this keeps the labels that tell hosts
// apart, which have other names in CloudWatch.
type alert struct {
	name       string // without the prefix
	expr       string // an alert for each series that it returns
	cloudWatch string // instead of expr in CloudWatch; empty: expr
	pending    time.Duration
	severity   severity
	summary    string // one line; {{ $labels.… }} as in Prometheus
	meaning    string
	look       []string
	do         []string
}

const alertPrefix = "ImageManager"

// alerts are all alerts.
var alerts = slices.Concat(hostAlerts, queueAlerts, imageAlerts, poolAlerts, upkeepAlerts)

var hostAlerts = []alert{
	{
		name: "Down", severity: critical, pending: 5 * time.Minute,
		expr: `up{job="imagemanager"} == 0`,
		// CloudWatch has no label job. This sees the last host go, no other.
		cloudWatch: `absent(imagemanager_ready)`,
		summary:    "{{ $labels.instance }} does not answer /metrics",
		meaning: "The daemon does not run, or its port cannot be reached. Messages wait in the queue. Active " +
			"snapshots are served all the same.",
		look: []string{
			"The end of the log, and the exit code: [what they mean](operating.md#running-and-stopping).",
			"`curl -s localhost:9090/readyz` on the host, with the port of `LISTEN_ADDR`: an answer means that only " +
				"the network is at fault.",
		},
		do: []string{
			"Exit code 2: mend the settings that the log lists. Start the daemon.",
			"Exit code 3: do what the log's last line says. Start the daemon.",
			"Exit code 4: another daemon holds `STATE_DIR`. Stop that one, or leave it to it.",
			"Otherwise start the daemon. It recovers by itself; nothing needs to be cleaned up before.",
		},
	},
	{
		name: "Restarting", severity: warning,
		expr:    `changes(process_start_time_seconds[1h]) > 2 and present_over_time(imagemanager_ready[1h])`,
		summary: "{{ $labels.instance }} was started {{ $value }} times in an hour",
		meaning: "The daemon ends again and again: it is killed, or refuses to run.",
		look: []string{
			"The log before each start. `stopped` is a stop by a signal; no such line is a kill or a crash.",
			"The kernel's log for the out-of-memory killer: `dmesg`.",
			"`consumer status`: an image at which processes died is named there with its reason.",
		},
		do: []string{
			"Out of memory: give the host more, or lower `MAX_UNPACKS` and `MAX_DOWNLOADS`.",
			"One image kills it: after `MAX_CUT_OFFS` deaths, and one more try alone, the daemon gives it up by " +
				"itself. `consumer rm KEY` is sooner.",
		},
	},
	{
		name: "NotReady", severity: critical, pending: 5 * time.Minute,
		expr:    `imagemanager_condition_active{condition!~"starting|recovering|alone"} == 1`,
		summary: "{{ $labels.instance }} takes no work: {{ $labels.condition }}",
		meaning: "Intake is paused. Messages wait in the queue; nothing is lost.",
		look: []string{
			"`curl -s localhost:9090/readyz`: cause and remedy in words. [The table](operating.md#health) has more.",
		},
		do: []string{
			"`pool_low`: [ImageManagerPoolDataFilling](#imagemanagerpooldatafilling), " +
				"[ImageManagerPoolMetadataFilling](#imagemanagerpoolmetadatafilling).",
			"`pool_read_only`: [ImageManagerPoolBroken](#imagemanagerpoolbroken).",
			"`pool_foreign`: do not restart. See [the right disks](operating.md#the-right-disks).",
			"`pool_gone`: start the daemon again; it attaches the pool.",
			"`disk_low`: [ImageManagerDiskFilling](#imagemanagerdiskfilling).",
			"`database`: make the disk under `STATE_DIR` writable; intake goes on by itself.",
			"`receive`, `settle`: [ImageManagerReceiveFailing](#imagemanagerreceivefailing).",
			"`bucket`, `outage`: follow the text. It is S3, the credentials, the network, or a right or tool that " +
				"is missing.",
			"`foreign_events`: `S3_BUCKET`, `S3_PREFIX` or the bucket's notification is wrong.",
			"`stopping`: the daemon should have ended by now. A second SIGTERM ends it at once; nothing is lost.",
			"`stuck`: [ImageManagerStuck](#imagemanagerstuck).",
		},
	},
	{
		name: "SlowStart", severity: warning, pending: 45 * time.Minute,
		expr:    `imagemanager_condition_active{condition=~"starting|recovering|alone"} == 1`,
		summary: "{{ $labels.instance }} has been {{ $labels.condition }} for 45 minutes",
		meaning: "The daemon recovers from a crash, or tries one suspicious image alone, for longer than an unpack " +
			"may take.",
		look: []string{
			"`curl -s localhost:9090/readyz`, and whether the log still gets lines.",
			"`consumer status`: what is pending, and since when.",
		},
		do: []string{
			"The log moves: wait.",
			"It does not: look for a disk that hangs (`dmesg`), and restart the daemon.",
			"`alone`: `consumer history KEY` of the image in the text. It ends by itself, at `UNPACK_TIMEOUT` at " +
				"the latest.",
		},
	},
}

var queueAlerts = []alert{
	{
		name: "ReceiveFailing", severity: critical, pending: 5 * time.Minute,
		expr: `sum without (result) (increase(imagemanager_queue_receives_total{result="failed"}[5m])) > 3` +
			` unless sum without (result) (increase(imagemanager_queue_receives_total{result!="failed"}[5m])) > 0`,
		summary: "{{ $labels.instance }} cannot receive messages",
		meaning: "Every poll of the queue fails. New images are not noticed.",
		look: []string{
			"`curl -s localhost:9090/readyz`: it has the class of the error, and what to do. " +
				"The log has the error itself.",
		},
		do: []string{
			"`credentials`: none, wrong or expired ones; the machine's role, and its clock.",
			"`denied`: the [IAM rights](deployment.md#rights), the key policy of an encrypted queue.",
			"`not_found`: `SQS_QUEUE_URL`, `AWS_REGION`.",
			"`network`, `timeout`: DNS, proxy, VPC endpoint, security group.",
			"`throttled`, `server`: AWS's. Wait; the daemon tries again within 20 s.",
		},
	},
	{
		name: "FallingBehind", severity: warning, pending: 15 * time.Minute,
		expr:    `histogram_quantile(0.9, rate(imagemanager_queue_message_lag_seconds_bucket[15m])) > 900`,
		summary: "{{ $labels.instance }} receives messages that are {{ $value | humanizeDuration }} old",
		meaning: "More images arrive than are worked on. A tenth of the messages wait for longer than 15 minutes.",
		look: []string{
			"The dashboard's row Stages: the stage without idle workers, before which others are blocked, is the " +
				"bottleneck.",
			"Its panel Failures: retries take workers as well.",
		},
		do: []string{
			"A peak: wait. No message is lost before the queue's retention ends.",
			"For good: [one more host on the queue](scaling.md).",
		},
	},
	{
		name: "Stuck", severity: critical, pending: 45 * time.Minute,
		expr: `sum without (stage, state) (imagemanager_stage_workers{state!="idle"}) > 0` +
			` and sum without (outcome) (increase(imagemanager_jobs_total[45m])) == 0`,
		summary: "{{ $labels.instance }} works, and has ended no job for 45 minutes",
		meaning: "A job takes longer than all time limits together. Something hangs: a disk, the kernel, or the " +
			"daemon.",
		look: []string{
			"`consumer status` for the pending images, then `consumer history KEY`: the last line is where it hangs.",
			"`dmesg`: errors of disks, blocked tasks.",
			"`curl -s 'localhost:9090/debug/pprof/goroutine?debug=2' > goroutines.txt`: keep it for the report.",
		},
		do: []string{
			"A disk hangs: mend that first.",
			"Restart the daemon. Its work is rolled back and tried again.",
		},
	},
	{
		name: "LeaseLost", severity: warning,
		expr: `increase(imagemanager_queue_messages_lost_total[15m]) > 0` +
			` or increase(imagemanager_queue_messages_capped_total[15m]) > 0`,
		summary: "{{ $labels.instance }} lost the lease of a message that it worked on",
		meaning: "SQS showed a message to others while its image was worked on, or the message was held for SQS's " +
			"limit of 12 hours. The image is done by whoever commits first; work was wasted.",
		look: []string{
			"The log: `ChangeMessageVisibility` with its error, or 12 hours.",
			"The panels Lease left at its extension, and CPU: a host without CPU time extends too late.",
		},
		do: []string{
			"The call is refused or fails: [ImageManagerReceiveFailing](#imagemanagerreceivefailing) has the " +
				"remedies.",
			"Too late: raise `SQS_VISIBILITY`, or take load off the host.",
			"12 hours: `consumer history KEY` of that image shows what held it up.",
		},
	},
	{
		name: "HeartbeatThin", severity: warning, pending: 10 * time.Minute,
		expr:    `histogram_quantile(0.01, rate(imagemanager_queue_heartbeat_margin_seconds_bucket[10m])) < 5`,
		summary: "{{ $labels.instance }} extends leases {{ $value | humanizeDuration }} before they end",
		meaning: "Leases are extended at the last moment. About half of `SQS_VISIBILITY` should be left. The next " +
			"delay loses one.",
		look: []string{
			"The panels AWS calls (p99 of ChangeMessageVisibilityBatch), and CPU.",
		},
		do: []string{
			"Slow calls: the network to SQS, a proxy.",
			"A loaded host: take load off it, or raise `SQS_VISIBILITY`.",
		},
	},
}

var imageAlerts = []alert{
	{
		name: "SecurityViolation", severity: critical,
		expr:    `increase(imagemanager_security_violations_total[15m]) > 0`,
		summary: "{{ $labels.instance }} refused an archive as an attack: {{ $labels.rule }}",
		meaning: "An archive broke a rule that no honest writer breaks. Nothing of it was written; its message is " +
			"deleted. Somebody who may write to the bucket sent it.",
		look: []string{
			"`consumer images --json`: images in state `violation`. `consumer history KEY`: rule, entry, SHA-256.",
			"The archive is kept in `STATE_DIR`/violations/SHA256.tar. Do not unpack it. [The rules](security.md).",
			"CloudTrail, or the bucket's access log: who wrote the object.",
		},
		do: []string{
			"Take that writer's right to the bucket away, until it is clear what happened.",
			"A false alarm: `consumer submit KEY` judges it again, under the policy of today.",
		},
	},
	{
		name: "Retrying", severity: warning, pending: 15 * time.Minute,
		expr:    `increase(imagemanager_stage_failures_total{verdict="retry"}[30m]) > 10`,
		summary: "{{ $labels.instance }} retries {{ $labels.stage }}: {{ $labels.reason }}",
		meaning: "Attempts fail for a reason that may pass. After `MAX_ATTEMPTS` an image is given up.",
		look: []string{
			"`consumer status`: pending images with their last reason. `consumer history KEY`: every attempt.",
			"[What each verdict means](operating.md#what-becomes-of-an-image).",
		},
		do: []string{
			"`denied`, `kms`: rights on the bucket, or on its key.",
			"`archived`: restore the object from its storage class.",
			"`timeout`: the network, or `DOWNLOAD_TIMEOUT` and `UNPACK_TIMEOUT` are too short for such images.",
			"`pool_full`: `consumer pool grow --data-size N`.",
			"`not_s3`: a proxy answers instead of S3.",
		},
	},
	{
		name: "DeadLetters", severity: warning,
		expr:    `increase(imagemanager_queue_messages_settled_total{outcome="dead_lettered"}[1h]) > 0`,
		summary: "{{ $labels.instance }} gave messages up",
		meaning: "Messages went to the dead-letter queue or to quarantine: their image failed `MAX_ATTEMPTS` times, " +
			"or they are not for this bucket and prefix, or no notification at all.",
		look: []string{
			"`consumer quarantine list`; or the messages of the dead-letter queue, with the attribute `Reason`.",
			"`consumer images --json`: images in state `dead`. `consumer history KEY`: every attempt.",
		},
		do: []string{
			"Mend the cause. Then `consumer submit KEY`, or `consumer quarantine requeue ID`.",
			"Foreign messages: correct the bucket's notification. `consumer quarantine drop ID` forgets one.",
		},
	},
}

// filling returns the expression for one of the pool's two spaces: it is near the reserve
// at which intake pauses, or will be there within a day. While less than a half is used,
// the growth is not carried on into the future: the first images of a pool would alert.
func filling(space string) string {
	return strings.NewReplacer(
		"USED", "imagemanager_pool_"+space+"_used_bytes",
		"SIZE", "imagemanager_pool_"+space+"_size_bytes",
		"RESERVE", "imagemanager_pool_"+space+"_reserve_ratio",
	).Replace("1 - USED / SIZE < RESERVE + 0.05 or (predict_linear(USED[6h], 86400) > SIZE * (1 - RESERVE) and USED " +
		"> SIZE / 2)")
}

var poolAlerts = []alert{
	{
		name: "PoolDataFilling", severity: warning, pending: 15 * time.Minute,
		expr:    filling("data"),
		summary: "{{ $labels.instance }}: the pool's data will soon be full",
		meaning: "Less than 5 % of the pool are left above `POOL_MIN_FREE_DATA`, or will be within a day. At the " +
			"reserve intake pauses; without space, writes to snapshots fail.",
		look: []string{
			"`consumer pool status`: what is used, and how much is free.",
			"`consumer snapshots`: which are not needed any more. What their users write takes space, too.",
		},
		do: []string{
			"`consumer pool grow --data-size N`. A block device must be enlarged before.",
			"Or `consumer rm KEY`, `consumer rm SNAPSHOT`: the space comes back at once.",
		},
	},
	{
		name: "PoolMetadataFilling", severity: warning, pending: 15 * time.Minute,
		expr:    filling("metadata"),
		summary: "{{ $labels.instance }}: the pool's metadata will soon be full",
		meaning: "Less than 5 % of the metadata are left above `POOL_MIN_FREE_METADATA`, or will be within a day. " +
			"At the reserve intake pauses. Full metadata make the pool read-only, and need a repair.",
		look: []string{"`consumer pool status`."},
		do: []string{
			"`consumer pool grow --metadata-size N`, at most 16 GiB.",
			"Or `consumer rm KEY`: fewer devices need less metadata.",
		},
	},
	{
		name: "PoolBroken", severity: critical, pending: time.Minute,
		expr:    `imagemanager_pool_mode{mode!="read_write"} == 1 or imagemanager_pool_needs_check == 1`,
		summary: "{{ $labels.instance }}: the pool is not writable, or needs a check",
		meaning: "The kernel protects the pool: a disk failed, or data or metadata were full. Snapshots can be " +
			"read; writes to them fail.",
		look: []string{
			"`consumer pool status`: the mode. `dmesg`: why.",
		},
		do: []string{
			"A disk failed: mend that first.",
			"`out_of_data_space`: `consumer pool grow --data-size N`.",
			"Otherwise unmount the snapshots, stop the daemon, `consumer pool repair`, start the daemon. Full " +
				"metadata: `consumer pool repair --metadata-size N`.",
		},
	},
	{
		name: "DiskFilling", severity: warning, pending: 15 * time.Minute,
		expr:    `imagemanager_disk_free_bytes < 2 * imagemanager_disk_reserve_bytes`,
		summary: "{{ $labels.instance }}: {{ $value | humanize1024 }}B are free under {{ $labels.path }}",
		meaning: "The file system under `STATE_DIR`, or under the pool's files, has less than twice " +
			"`STATE_MIN_FREE`. Below the reserve intake pauses. A pool on files breaks when its file system is full.",
		look: []string{
			"`df -h`, and `du -sh STATE_DIR/*`. [What grows](operating.md#what-grows).",
		},
		do: []string{
			"Enlarge the file system; or `consumer rm KEY`, which frees the archive and the space in the pool.",
			"Lower `VIOLATIONS_SIZE`. `metadata.img.damaged-*` is from a repair, and yours to remove.",
		},
	},
}

var upkeepAlerts = []alert{
	{
		name: "Leak", severity: warning, pending: 30 * time.Minute,
		expr:    `imagemanager_unclaimed > 0 or imagemanager_reconcile_problems > 0`,
		summary: "{{ $labels.instance }}: something is left that a reconcile does not repair",
		meaning: "There are devices, mounts or files without an owner in the journal, or things that could not be " +
			"repaired.",
		look: []string{
			"`consumer reconcile --dry-run`: each by name, and what would be done.",
			"The log: `left as it is`, with `remedy`.",
		},
		do: []string{
			"Follow the remedy: mostly a process holds a device open. The next reconcile does the rest.",
			"Foreign devices after a restored backup: see [backup and restore](operating.md#backup-and-restore).",
		},
	},
	{
		name: "ReconcileStale", severity: warning, pending: 10 * time.Minute,
		expr:    `time() - imagemanager_reconcile_last_success_timestamp_seconds > 3600`,
		summary: "{{ $labels.instance }}: no reconcile has succeeded for {{ $value | humanizeDuration }}",
		meaning: "Journal, pool and files have not been compared for an hour. Leaks and lost devices go unnoticed.",
		look: []string{
			"The log, for `reconcile` and its error.",
			"`consumer pool status`: another command may hold the pool, such as a `consumer verify --all`.",
		},
		do: []string{
			"Mend what the error names.",
			"`RECONCILE_INTERVAL` is 0 or more than an hour: silence this alert, or shorten it.",
		},
	},
	{
		name: "DatabaseSlow", severity: warning, pending: 15 * time.Minute,
		expr: `histogram_quantile(0.99, rate(imagemanager_store_transaction_duration_seconds_bucket[15m]))` +
			` > 0.1`,
		summary: "{{ $labels.instance }}: one in a hundred transactions takes {{ $value | " +
			"humanizeDuration }}",
		meaning: "SQLite should take less than 100 ms. Every step of every image waits for it.",
		look: []string{
			"`iostat -x 1`, or what else writes to the disk under `STATE_DIR`.",
			"The size of `consumer.db-wal`: above 4 MiB somebody reads for a long time, such as a backup.",
		},
		do: []string{
			"Put `STATE_DIR` on a faster disk, or on another one than the pool.",
		},
	},
}
