package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	tarballs "imagemanager.internal/test/images"
)

// Before anything has happened every counter of failures and violations is there with 0:
// else increase() in an alert does not see the first.
func TestMetricsAtStart(t *testing.T) {
	h := newHost(t)
	h.Start()
	_, text := h.Get("/metrics")
	for _, m := range []string{
		`security_violations_total{rule="dotdot_name"}`,
		`stage_failures_total{reason="server",stage="download",verdict="outage"}`,
		`queue_messages_settled_total{outcome="dead_lettered"}`, `queue_receive_failures_total{class="denied"}`,
		`queue_call_retries_total{operation="extend"}`, `notifications_ignored_total{reason="foreign_bucket"}`,
		`aws_client_calls_total{operation="SendMessage",result="throttled",service="SQS"}`,
	} {
		if !strings.Contains(text, "imagemanager_"+m+" 0\n") {
			t.Errorf("%s is absent until it happens once", m)
		}
	}
	for _, m := range []string{
		"ready 1", "queue_messages_lost_total 0", "queue_permits 8",
		`config_info{bucket="` + h.Cloud.Name + `",policy="strict",queue="` + path.Base(h.Cloud.Queue) + `"} 1`,
		`stage_workers{stage="unpack",state="idle"} 2`,
	} {
		if !strings.Contains(text, "imagemanager_"+m+"\n") {
			t.Errorf("%s is not there", m)
		}
	}
	h.WaitFor("the depth of the queue", func() bool {
		_, text := h.Get("/metrics")
		return strings.Contains(text, `imagemanager_queue_depth_messages{queue="main",state="visible"} `) &&
			strings.Contains(text, `calls_total{operation="GetQueueAttributes",result="ok",service="SQS"} 1`)
	})
	series := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if t.Logf("%d series at rest", series); series > mostSeries {
		t.Errorf("%d series at rest, at most %d are paid for", series, mostSeries)
	}
	h.Stop()
}

// One image leaves its traces in the metrics of every layer.
func TestMetricsOfAnImage(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst()
	h.WaitDrained()
	_, text := h.Get("/metrics")
	for _, step := range []string{"judge", "reserve", "mkfs", "extract", "sync", "readback", "seal"} {
		h.wantSample(text, `unpack_step_duration_seconds_count{step="`+step+`"}`, 1)
	}
	for sample, want := range map[string]float64{
		`stage_duration_seconds_count{outcome="done",stage="activate"}`: 1,
		`jobs_total{outcome="done"}`:                                    1,
		`images{state="active"}`:                                        1,
		`devices{kind="image",state="ready"}`:                           1,
		`devices{kind="snapshot",state="ready"}`:                        1,
		`image_entries_count`:                                           1,
		`pool_mode{mode="read_write"}`:                                  1,
		`pool_mode{mode="read_only"}`:                                   0,
		`pool_needs_check`:                                              0,
		`pool_reserved_bytes`:                                           0,
		`download_requests_total{result="failed"}`:                      0,
		`stage_capacity{stage="download"}`:                              5,
	} {
		h.wantSample(text, sample, want)
	}
	for _, sample := range []string{
		`dm_ioctl_duration_seconds_count{command="target_msg"}`,
		`dm_ioctl_duration_seconds_count{command="table_load"}`,
		`store_transaction_duration_seconds_count`, `stage_bytes_total{stage="download"}`,
		`stage_bytes_total{stage="unpack"}`, `download_requests_total{result="ok"}`,
		`disk_free_bytes{path="state"}`, `disk_reserve_bytes{path="state"}`, `pool_data_reserve_ratio`,
		`recovery_duration_seconds`, `reconcile_duration_seconds_count`, `reconcile_last_success_timestamp_seconds`,
	} {
		if n, found := sampleOf(text, sample); !found || n <= 0 {
			t.Errorf("%s is %g, found %t; want more than 0", sample, n, found)
		}
	}
	h.Stop()
}

// From its message to its snapshot an image waits six times for the disk under the
// journal, not once for each event. So few are what makes an activation fast.
func TestCommitsOfAnImage(t *testing.T) {
	h := newHost(t, "RECONCILE_INTERVAL=0") // it raises the pool's generation now and then
	h.Start()
	h.makeFirst() // and what is done once
	h.WaitDrained()
	commits := func() float64 {
		_, text := h.Get("/metrics")
		n, _ := sampleOf(text, "store_transaction_duration_seconds_count")
		return n
	}
	before := commits()
	h.put("images/second.tar", tarballs.RootFS("second", 5))
	h.WaitActive("images/second.tar")
	h.WaitDrained()
	if n := commits() - before; before == 0 || n != 6 {
		t.Errorf("an image waits %g times for the disk, want 6", n)
	}
	h.Stop()
}

// sampleOf returns the value of a sample of ours in a scrape.
func sampleOf(text, sample string) (value float64, found bool) {
	for line := range strings.Lines(text) {
		if rest, is := strings.CutPrefix(line, "imagemanager_"+sample+" "); is {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return value, err == nil
		}
	}
	return 0, false
}

func (h *host) wantSample(text, sample string, want float64) {
	h.T.Helper()
	if n, found := sampleOf(text, sample); !found || n != want {
		h.T.Errorf("%s is %g, found %t; want %g", sample, n, found, want)
	}
}

// mostSeries is how many series one daemon may have at rest: a scraper keeps and pays for
// each.
const mostSeries = 900

// An image of 40,000 empty files takes no more of the pool than is set aside for it, but
// for one part in ten.
func TestReservationIsEnough(t *testing.T) {
	h := newSizedHost(t, "3GiB", "RECONCILE_INTERVAL=0", "DEVICE_SIZE=2GiB", "UNPACK_TIMEOUT=5m")
	var list []tarballs.Entry
	for i := range 40000 {
		if i%100 == 0 {
			list = append(list, tarballs.Entry{Name: fmt.Sprintf("var/%03d/", i/100)})
		}
		list = append(list, tarballs.Entry{Name: fmt.Sprintf("var/%03d/%d", i/100, i), Mode: 0o644})
	}
	body := tarballs.RootFS("x", 3, list...)
	plan, err := archive.Check(t.Context(), bytes.NewReader(body), int64(len(body)), archive.Options{})
	h.Check(err)
	before, err := h.pool().Status()
	h.Check(err)
	h.put("images/x.tar", body)
	h.Start()
	h.WaitActive("images/x.tar")
	after, err := h.pool().Status()
	h.Check(err)
	if taken := after.UsedData - before.UsedData; taken > plan.PoolBytes()*11/10 {
		t.Errorf("set aside %d MiB, taken %d MiB", plan.PoolBytes()>>20, taken>>20)
	}
	h.Kill()
}

// At the default level every transition of an image is a line with the same keys, and the
// end of an attempt says how it ended and how long it took.
func TestTransitionsAreLogged(t *testing.T) {
	h := newHost(t)
	h.Start("LOG_LEVEL=info")
	h.makeFirst()
	h.put("images/bad.tar", []byte("not a tar archive"))
	h.WaitEnded("images/bad.tar")
	h.WaitDrained()
	h.Stop()
	states, ends := map[string]bool{}, map[string]bool{}
	for _, text := range bytes.Split(h.Log(), []byte("\n")) {
		var line map[string]any
		if json.Unmarshal(text, &line) != nil || line["event"] == nil || line["event"] == "queued" {
			continue
		}
		keys := []string{"image_id", "s3_key", "trace_id", "step", "attempt", "time", "level"}
		switch line["event"] {
		case "step":
			keys = append(keys, "device_id", "device_state")
			states[fmt.Sprint(line["device_state"])] = true
		case "done", "failed":
			keys = append(keys, "verdict", "took_ms")
			ends[fmt.Sprint(line["step"], " ", line["verdict"])] = true
			if line["verdict"] == "done" && line["step"] != "download" {
				keys = append(keys, "device_id")
			}
		}
		for _, key := range keys {
			if line[key] == nil {
				t.Errorf("%s is missing in %s", key, text)
			}
		}
	}
	for _, want := range []string{"reserved", "created", "formatted", "filled", "sealed"} {
		if !states[want] {
			t.Errorf("no line says that a device is %s: %v", want, states)
		}
	}
	for _, want := range []string{"download done", "unpack done", "activate done", "unpack rejected"} {
		if !ends[want] {
			t.Errorf("no line says %s: %v", want, ends)
		}
	}
	h.Look()
}
