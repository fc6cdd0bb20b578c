package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// Whatever an upload is refused for, its line in the log says so: by a code, and for an
// archive by the entry and its place.
func TestRefusalsAreLoggedByName(t *testing.T) {
	at := func(reason archive.Reason, violation bool) error {
		return &archive.Rejection{
			Reason: reason, Violation: violation, Entry: "etc/x", Offset: 512, Index: 1,
			Others: map[archive.Reason]int{archive.FIFO: 2},
		}
	}
	for _, c := range []struct {
		stage           store.Stage
		err             error
		verdict, reason string
		placed          bool
	}{
		{store.StageDownload, download.ErrKey, "rejected", "bad_key", false},
		{store.StageDownload, download.ErrTooBig, "rejected", "image_too_big", false},
		{store.StageUnpack, at(archive.AbsoluteName, true), "violation", "absolute_name", true},
		{store.StageUnpack, at(archive.DotdotName, true), "violation", "dotdot_name", true},
		{store.StageUnpack, at(archive.SymlinkEscapes, true), "violation", "symlink_escapes", true},
		{store.StageUnpack, at(archive.DigestMismatch, true), "violation", "digest_mismatch", true},
		{store.StageUnpack, at(archive.SetuidSetgid, false), "rejected", "setuid_setgid", true},
		{store.StageUnpack, at(archive.FileTooBig, false), "rejected", "file_too_big", true},
		{store.StageUnpack, at(archive.TooManyEntries, false), "rejected", "too_many_entries", true},
		{store.StageUnpack, fmt.Errorf("unpack: %w", errTimeout), "retry", "timeout", false},
	} {
		var log bytes.Buffer
		p := newLoggingPipeline(t, zerolog.New(&log))
		job := enqueue(t, p, 1)[0]
		attempt(t, p, job, c.stage)
		log.Reset()
		p.recordFailure(t.Context(), job, p.judge(&job.Task, c.err))
		var line map[string]any
		if err := json.Unmarshal(bytes.TrimSpace(log.Bytes()), &line); err != nil {
			t.Fatalf("%v: %s", err, &log)
		}
		if line["verdict"] != c.verdict || line["reason"] != c.reason || (line["entry"] == "etc/x") != c.placed {
			t.Errorf("%v: %s", c.err, &log)
		}
		if c.placed && (line["more"] != 2.0 || !strings.Contains(job.Image.Reason, "2 more: 2 fifo")) {
			t.Errorf("the others are not named: %q in the journal, %s", job.Image.Reason, &log)
		}
		for _, key := range []string{"image_id", "s3_key", "trace_id", "step", "attempt", "took_ms"} {
			if line[key] == nil {
				t.Errorf("%s is missing in %s", key, &log)
			}
		}
	}
}

// What happens in any bucket that is in use is no error, nor is an archive that somebody
// has to make again. Alerts on errors are for what the operator has to see to.
func TestLevelsOfVerdicts(t *testing.T) {
	for v, level := range map[verdict]string{
		superseded: "info", vanished: "info", retry: "warn", reject: "warn", violation: "error", dead: "error",
	} {
		var log bytes.Buffer
		logger := zerolog.New(&log)
		newPipeline(t).logFailure(&logger, judgement{verdict: v, text: "x"}, store.Image{})
		if !strings.Contains(log.String(), `"level":"`+level+`"`) {
			t.Errorf("%s: %s; want level %s", v, &log, level)
		}
	}
}

// attempt begins an attempt at the download, or at the unpack after it.
func attempt(t *testing.T, p *Pipeline, job *Job, st store.Stage) {
	t.Helper()
	if err := p.begin(t.Context(), job, store.StageDownload); err != nil {
		t.Fatal(err)
	}
	if st == store.StageDownload {
		return
	}
	if _, err := p.store.FinishDownload(t.Context(), job.Attempt, store.Blob{Path: "p"}); err != nil {
		t.Fatal(err)
	}
	if err := p.begin(t.Context(), job, st); err != nil {
		t.Fatal(err)
	}
}
