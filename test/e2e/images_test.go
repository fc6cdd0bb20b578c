package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
)

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // writing to memory
	}
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func md5Hex(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// events counts the journal's events of an image.
func (h *host) events(image int64) int {
	h.T.Helper()
	events, err := h.Store.History(h.T.Context(), image)
	h.Check(err)
	return len(events)
}

// waitLogged waits until the daemon's log has the message n times.
func (h *host) waitLogged(message string, n int) {
	h.T.Helper()
	h.WaitFor(fmt.Sprintf("%d times in the log: %s", n, message), func() bool {
		text := h.Log()
		return bytes.Count(text, []byte(`"message":"`+message+`"`)) >= n
	})
}

// waitEvent waits for an event of a key's image, named as by name().
func (h *host) waitEvent(key, event string) {
	h.T.Helper()
	h.WaitFor(key+" reaches "+event, func() bool {
		images, err := h.Store.ByKey(h.T.Context(), key)
		h.Check(err)
		if len(images) == 0 {
			return false
		}
		events, err := h.Store.History(h.T.Context(), images[0].ID)
		h.Check(err)
		return slices.ContainsFunc(events, func(e store.Event) bool { return name(e) == event })
	})
}

func name(e store.Event) string {
	parts := []string{string(e.Kind), string(e.Stage)}
	if e.Detail.Device != nil && e.Kind == store.EventStep {
		parts = append(parts, string(e.Detail.Device.State))
	}
	return strings.Join(parts, " ")
}

// overlaps replays the journal of all images and returns the most that ran in each stage
// at once.
func (h *host) overlaps() map[store.Stage]int {
	h.T.Helper()
	now, most := map[store.Stage]int{}, map[store.Stage]int{}
	for seq := int64(0); ; {
		events, err := h.Store.Since(h.T.Context(), seq)
		h.Check(err)
		if len(events) == 0 {
			return most
		}
		for _, e := range events {
			switch e.Kind {
			case store.EventBegun:
				now[e.Stage]++
				most[e.Stage] = max(most[e.Stage], now[e.Stage])
			case store.EventDone, store.EventFailed, store.EventUndone:
				now[e.Stage]--
			}
			seq = e.Seq
		}
	}
}

// journalPoints returns the failpoints that the journal of one good image goes through.
func (h *host) journalPoints(body []byte) []string {
	h.T.Helper()
	h.put("images/model.tar", body)
	h.Start()
	img := h.WaitActive("images/model.tar")
	h.WaitDrained()
	h.Stop()
	events, err := h.Store.History(h.T.Context(), img.ID)
	h.Check(err)
	var points []string
	for _, e := range events {
		if e.Stage == store.StageActivate && e.Detail.Device != nil && e.Detail.Device.State == store.DeviceCreated {
			continue // recorded with the next one
		}
		state := store.DeviceState("")
		if e.Detail.Device != nil {
			state = e.Detail.Device.State
		}
		points = append(points, fmt.Sprintf("%s:%s:%s", e.Kind, e.Stage, state))
	}
	if len(points) < 13 {
		h.T.Fatalf("only %d events for a whole image: %v", len(points), points)
	}
	return points
}

// readlink returns a symlink's target in a snapshot.
func (h *host) readlink(snapshot, name string) string {
	h.T.Helper()
	m, err := devmapper.MountDetached(snapshot, ext4.MountInspect)
	h.Check(err)
	defer m.Close()
	target, err := os.Readlink(path.Join(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()), name))
	h.Check(err)
	return target
}

// record returns the record of an S3 event.
func record(event, bucket, key, etag string) string {
	const format = `{"eventVersion":"2.1","eventSource":"aws:s3","eventName":%q,` +
		`"s3":{"bucket":{"name":%q},"object":{"key":%q,"eTag":%q}}}`
	return fmt.Sprintf(format, event, bucket, key, etag)
}

// message returns the message that S3 sends to SQS about these records.
func message(records ...string) string {
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}
