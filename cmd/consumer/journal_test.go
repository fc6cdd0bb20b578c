package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
)

// journal fills a database as a daemon would.
type journal struct {
	*store.Store
	t *testing.T
}

// begun returns a journal in a new state directory, which STATE_DIR names.
func begun(t *testing.T) *journal {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("STATE_DIR", dir)
	return begunIn(t, dir)
}

// begunIn returns a journal in a state directory.
func begunIn(t *testing.T, dir string) *journal {
	t.Helper()
	s, err := store.Open(t.Context(), databasePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &journal{s, t}
}

// must returns the value, or ends the test.
func must[T any](j *journal) func(T, error) T {
	return func(v T, err error) T {
		j.t.Helper()
		if err != nil {
			j.t.Fatal(err)
		}
		return v
	}
}

// pending enqueues an object. Each content is an object of its own.
func (j *journal) pending(key, content string) store.Image {
	j.t.Helper()
	img, created, err := j.Enqueue(j.t.Context(),
		store.Object{Bucket: "demo", Key: key, ETag: content, Size: 1 << 20})
	if err != nil || !created {
		j.t.Fatal(created, err)
	}
	return img
}

// ended has the first attempt at an image fail, with a verdict.
func (j *journal) ended(key, verdict, reason string) {
	j.t.Helper()
	j.end(j.pending(key, "e"), verdict, reason)
}

// end has an attempt at a pending image fail, with a verdict.
func (j *journal) end(img store.Image, verdict, reason string) {
	j.t.Helper()
	a := must[store.Attempt](j)(j.Begin(j.t.Context(), img.ID, store.StageDownload))
	must[store.Image](j)(j.Fail(j.t.Context(), a,
		store.Failure{Verdict: verdict, Reason: reason, Rules: "strict", Messages: []string{"m-1"}}))
}

// active takes a new image through all its stages.
func (j *journal) active(key, content string) {
	j.t.Helper()
	j.activate(j.pending(key, content))
}

// activate takes a pending image through all its stages.
func (j *journal) activate(img store.Image) {
	j.t.Helper()
	ctx := j.t.Context()
	sum := strings.Repeat(fmt.Sprintf("%02x", img.ID), 32)
	a := must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageDownload))
	must[store.Image](j)(j.FinishDownload(ctx, a, store.Blob{
		Path: fmt.Sprintf("/state/blobs/%d.tar", img.ID), SHA256: sum, Size: 1 << 20, Inode: 7,
		ModTime: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
	}))
	a = must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageUnpack))
	d := must[store.Device](j)(j.Reserve(ctx, a,
		store.Device{Kind: store.DeviceKindImage, Bytes: 20 << 30, FSUUID: "11111111-2222-3333-4444-555555555555"}))
	for _, to := range []store.DeviceState{store.DeviceCreated, store.DeviceFormatted, store.DeviceFilled} {
		d = must[store.Device](j)(j.Advance(ctx, a, d, to))
	}
	d = must[store.Device](j)(j.Seal(ctx, a, d, store.Tree{
		Device: d.ID, Shape: "oci", Policy: "distro", Digest: "sha256:" + sum, Entries: 120, Files: 100,
		Bytes: 1 << 19, Changed: 2, Layers: []store.Layer{{Digest: "sha256:" + sum, Size: 1 << 18}},
	}, []store.Adjustment{
		{Rule: "setuid_setgid", Entry: "usr/bin/su", From: "04755", To: "0755"},
		{Rule: "device_node", Entry: "dev/\x1b[2Jnull", From: "character device 1:3"},
	}))
	must[store.Image](j)(j.FinishUnpack(ctx, a, d))
	a = must[store.Attempt](j)(j.Begin(ctx, img.ID, store.StageActivate))
	sn := must[store.Device](j)(j.Reserve(ctx, a,
		store.Device{Kind: store.DeviceKindSnapshot, Bytes: 20 << 30, Origin: d.ID}))
	must[store.Image](j)(j.FinishActivate(ctx, a, sn, time.Now(), fmt.Sprintf("/dev/mapper/cim-images-snap-%d", sn.ID)))
}

// quarantined puts a message into the quarantine.
func (j *journal) quarantined(id, body, reason string) {
	j.t.Helper()
	if err := j.Quarantine(j.t.Context(), store.QuarantinedMessage{
		MessageID: id, Body: body, Reason: reason, Attempts: 3, SentAt: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
	}); err != nil {
		j.t.Fatal(err)
	}
}

// someJournal has an image in most states, and two of one key.
func someJournal(t *testing.T) {
	t.Helper()
	begun(t).fill()
}

func (j *journal) fill() {
	j.t.Helper()
	j.active("images/debian/12.tar", "1")
	j.ended("images/setuid.tar", "rejected",
		`entry "usr/bin/su": setuid bit; set IMAGE_POLICY=distro, and it would be stripped`)
	j.active("images/debian/12.tar", "2")
	j.ended("images/busy.tar", "retry", "download: timed out after 5m")
	j.ended("images/attack.tar", "violation", `entry "../etc/passwd": leaves the root`)
	j.pending("images/\x1b[31mred.tar", "6")
	j.quarantined("0f8c-1", `{"Records":`, "not JSON: unexpected end of JSON input")
	j.quarantined("0f8c-2", "{}", "no record of an object in it")
}
