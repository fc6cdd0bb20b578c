package e2e

import (
	"archive/tar"
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
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// entry is one member of a tarball: a directory when its name ends in a slash, a link when link is set, else a file.
type entry struct {
	name, body, link string
	mode             int64
	device           bool
}

// tarball writes the entries as they are.
func tarball(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		hdr := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), ModTime: time.Unix(1700000000, 0), Format: tar.FormatUSTAR}
		if e.mode == 0 {
			hdr.Mode = 0o755
		}
		switch {
		case strings.HasSuffix(e.name, "/"):
			hdr.Typeflag = tar.TypeDir
		case e.link != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, e.link
		case e.device:
			hdr.Typeflag, hdr.Devmajor, hdr.Devminor = tar.TypeChar, 1, 3
		default:
			hdr.Typeflag = tar.TypeReg
		}
		must(w.WriteHeader(hdr))
		_, err := w.Write([]byte(e.body))
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

// rootfs is a small image: /etc/hello holds text; files more lie in /usr/share.
func rootfs(text string, files int, more ...entry) []byte {
	list := []entry{
		{name: "etc/"},
		{name: "usr/"},
		{name: "usr/share/"},
		{name: "var/"},
		{name: "etc/hello", body: text, mode: 0o644},
		{name: "usr/greeting", link: "../etc/hello"},
	}
	for i := range files {
		list = append(list, entry{name: fmt.Sprintf("usr/share/%04d", i), body: strings.Repeat(text, 500), mode: 0o644})
	}
	return tarball(append(list, more...)...)
}

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
	h.t.Helper()
	events, err := h.store.History(h.t.Context(), image)
	h.check(err)
	return len(events)
}

// logged waits until the daemon's log has the message n times.
func (h *host) logged(message string, n int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%d times in the log: %s", n, message), func() bool {
		text, err := os.ReadFile(h.log.Name())
		h.check(err)
		return bytes.Count(text, []byte(`"message":"`+message+`"`)) >= n
	})
}

// reaches waits for an event of a key's image, named as by name().
func (h *host) reaches(key, event string) {
	h.t.Helper()
	h.eventually(key+" reaches "+event, func() bool {
		images, err := h.store.ByKey(h.t.Context(), key)
		h.check(err)
		if len(images) == 0 {
			return false
		}
		events, err := h.store.History(h.t.Context(), images[0].ID)
		h.check(err)
		return slices.ContainsFunc(events, func(e store.Event) bool { return name(e) == event })
	})
}

func name(e store.Event) string {
	parts := []string{string(e.Kind), string(e.Stage)}
	if e.Detail.Device != nil && e.Kind == store.Step {
		parts = append(parts, string(e.Detail.Device.State))
	}
	return strings.Join(parts, " ")
}

// overlaps replays the journal of all images and returns the most that ran in each stage at once.
func (h *host) overlaps() map[store.Stage]int {
	h.t.Helper()
	now, most := map[store.Stage]int{}, map[store.Stage]int{}
	for seq := int64(0); ; {
		events, err := h.store.Since(h.t.Context(), seq)
		h.check(err)
		if len(events) == 0 {
			return most
		}
		for _, e := range events {
			switch e.Kind {
			case store.Begun:
				now[e.Stage]++
				most[e.Stage] = max(most[e.Stage], now[e.Stage])
			case store.Done, store.Failed, store.Undone:
				now[e.Stage]--
			}
			seq = e.Seq
		}
	}
}

// points returns the failpoints that the journal of one good image goes through.
func (h *host) points(body []byte) []string {
	h.t.Helper()
	h.put("images/model.tar", body)
	h.start()
	img := h.active("images/model.tar")
	h.drained()
	h.stop()
	events, err := h.store.History(h.t.Context(), img.ID)
	h.check(err)
	var points []string
	for _, e := range events {
		state := store.DeviceState("")
		if e.Detail.Device != nil {
			state = e.Detail.Device.State
		}
		points = append(points, fmt.Sprintf("%s:%s:%s", e.Kind, e.Stage, state))
	}
	if len(points) < 14 {
		h.t.Fatalf("only %d events for a whole image: %v", len(points), points)
	}
	return points
}

// readlink returns a symlink's target in a snapshot.
func (h *host) readlink(snapshot, name string) string {
	h.t.Helper()
	m, err := devmapper.MountDetached(snapshot, devmapper.MountInspect)
	h.check(err)
	defer m.Close()
	target, err := os.Readlink(path.Join(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()), name))
	h.check(err)
	return target
}
