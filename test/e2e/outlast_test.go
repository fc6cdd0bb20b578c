package e2e

import (
	"net/http"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// A slow link: no attempt has the time for the whole object, but each gets further.
// Progress does not count as a failure, and the image is made.
func TestSlowButSteadyDownload(t *testing.T) {
	h := newHost(t, "DOWNLOAD_TIMEOUT=8s", "MAX_ATTEMPTS=2")
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Rate: 2_000_000})
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 3, big(80)))
	h.WaitLonger(2*time.Minute, "images/a.tar ends", func() bool {
		images := h.ImagesOf("images/a.tar")
		return len(images) > 0 && images[0].State != store.StatePending
	})
	h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// A proxy answers for S3 with status 200 and a page of its own for longer than all
// attempts of an image: the trouble affects every image, is counted against none, and
// both images are made.
func TestProxyAnswersForS3(t *testing.T) {
	h := newHost(t)
	p := h.interposeProxy(http.StatusOK)
	p.closed.Store(true)
	h.Start()
	small, large := tarballs.RootFS("hello", 3), tarballs.RootFS("hello", 3, big(20))
	h.put("images/small.tar", small)
	h.put("images/large.tar", large)
	began := time.Now()
	h.WaitFor("the proxy has answered for long", func() bool { return time.Since(began) > 25*time.Second })
	p.closed.Store(false)
	h.waitMade("images/small.tar", small)
	h.waitMade("images/large.tar", large)
	h.checkNoFailures("images/small.tar")
	h.checkNoFailures("images/large.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}
