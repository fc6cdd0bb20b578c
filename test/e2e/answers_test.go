package e2e

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// proxy is a proxy before S3 and SQS that may answer in S3's place.
type proxy struct {
	closed atomic.Bool // answers for S3
	pages  atomic.Int64
}

// interposeProxy puts a proxy between the host and its S3 and SQS. It passes everything
// on, except while it is closed: then it answers for S3 with a page and that status.
func (h *host) interposeProxy(status int) *proxy {
	h.T.Helper()
	target, err := url.Parse(h.Cloud.URL)
	h.Check(err)
	p := &proxy{}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.closed.Load() || r.Header.Get("X-Amz-Target") != "" {
			pass.ServeHTTP(w, r)
			return
		}
		p.pages.Add(1)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		fmt.Fprint(w, "<html><body>Please log in, or come back after the maintenance.</body></html>")
	}))
	h.T.Cleanup(srv.Close)
	h.Env = append(h.Env, "AWS_ENDPOINT_URL="+srv.URL)
	return p
}

// isMade reports whether there is an active image of the key with these bytes.
func (h *host) isMade(key string, body []byte) bool {
	h.T.Helper()
	return slices.ContainsFunc(h.ImagesOf(key),
		func(img store.Image) bool { return img.ETag == md5Hex(body) && img.State == store.StateActive })
}

// waitMade waits until there is an active image of the key with these bytes.
func (h *host) waitMade(key string, body []byte) {
	h.T.Helper()
	h.WaitFor(key+" is active", func() bool { return h.isMade(key, body) })
}

// A proxy answers for S3 with a page of its own and status 200 or 404: no image is
// refused, none is made of the page, and every image is made when the proxy is gone.
func TestProxyHoldsUpOnly(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusNotFound} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			h := newHost(t, "MAX_ATTEMPTS=1000")
			p := h.interposeProxy(status)
			p.closed.Store(true)
			small, large := tarballs.RootFS("hello", 3), tarballs.RootFS("hello", 3, big(20))
			h.put("images/small.tar", small)
			h.put("images/large.tar", large)
			h.Start()
			h.WaitFor("the proxy has answered for both, several times", func() bool { return p.pages.Load() > 3 })
			if out, code := h.Try("submit", "images/small.tar"); code == 0 {
				t.Errorf("submit takes the page for an object: %s", out)
			}
			if out, code := h.Try("backfill"); code == 0 {
				t.Errorf("backfill takes the page for a listing: %s", out)
			}
			for key, body := range map[string][]byte{"images/small.tar": small, "images/large.tar": large} {
				if images := h.ImagesOf(key); len(images) != 1 || images[0].State != store.StatePending ||
					images[0].ETag != md5Hex(body) {
					t.Errorf("while the proxy answers: %+v", images)
				}
			}
			p.closed.Store(false)
			h.waitMade("images/small.tar", small)
			h.waitMade("images/large.tar", large)
			h.WaitDrained()
			h.Stop()
			h.Look()
		})
	}
}

// An image that a proxy's page held up is made after the proxy is gone, whatever the
// operator does meanwhile.
func TestBackAfterProxyAnswered(t *testing.T) {
	body := tarballs.RootFS("hello", 3)
	for name, back := range map[string]func(h *host){
		"backfill":       func(h *host) { h.Consumer("backfill") },
		"submit":         func(h *host) { h.Consumer("submit", "images/a.tar") },
		"uploaded again": func(h *host) { h.put("images/a.tar", body) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			p := h.interposeProxy(http.StatusOK)
			p.closed.Store(true)
			h.Start()
			h.put("images/a.tar", body)
			h.WaitFor("the proxy has answered several times", func() bool { return p.pages.Load() > 2 })
			p.closed.Store(false)
			back(h)
			h.waitMade("images/a.tar", body)
			if n := len(h.ImagesOf("images/a.tar")); n != 1 {
				t.Errorf("%d images of one object", n)
			}
			h.Stop()
			h.Look()
		})
	}
}

// Every fifth answer of a download ends early: what is missing is asked for again in the
// same attempt.
func TestBrokenParts(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3", "DEVICE_SIZE=512MiB")
	for range 40 {
		h.emulator().Fault(emulator.Fault{Op: "GetObject", Skip: 4, Times: 1, Break: true, After: 1 << 20})
	}
	h.Start()
	h.put("images/big.tar", tarballs.RootFS("big", 3, big(100)))
	h.WaitActive("images/big.tar")
	h.checkNoFailures("images/big.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// An object that was stored with a customer's own key can be read by nobody without it:
// it is refused at once, with S3's code, and does not come back.
func TestCustomerKeyIsRefused(t *testing.T) {
	h := newHost(t)
	h.emulator()
	key := []byte(strings.Repeat("k", 32))
	sum := md5.Sum(key)
	_, err := h.Cloud.S3.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(h.Cloud.Name), Key: aws.String("images/secret.tar"), Body: strings.NewReader("secret"),
		SSECustomerAlgorithm: aws.String("AES256"), SSECustomerKey: aws.String(base64.StdEncoding.EncodeToString(key)),
		SSECustomerKeyMD5: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	})
	h.Check(err)
	h.Start()
	img := h.WaitEnded("images/secret.tar")
	if img.State != store.StateRejected || img.Failures > 1 ||
		!strings.HasPrefix(img.Reason, "S3 refuses this object: InvalidRequest: ") {
		t.Errorf("%s after %d failures: %s", img.State, img.Failures, img.Reason)
	}
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// In a bucket with versions an event that leaves the version id out, as some servers do,
// is about the same image as one that has it, whichever comes first.
func TestVersionIDLeftOut(t *testing.T) {
	h := newHost(t)
	_, err := h.Cloud.S3.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket:                  aws.String(h.Cloud.Name),
		VersioningConfiguration: &s3types.VersioningConfiguration{Status: s3types.BucketVersioningStatusEnabled},
	})
	h.Check(err)
	without := func(key string, body []byte) {
		h.send(fmt.Sprintf(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put",`+
			`"s3":{"bucket":{"name":%q},"object":{"key":%q,"size":%d,"eTag":%q}}}]}`, h.Cloud.Name, key, len(body),
			md5Hex(body)))
	}
	h.Start()
	first, second := tarballs.RootFS("first", 3), tarballs.RootFS("second", 3)
	h.put("images/a.tar", first)
	h.waitMade("images/a.tar", first)
	without("images/a.tar", first)
	h.Check(h.Cloud.Silence(t.Context()))
	h.put("images/b.tar", second)
	without("images/b.tar", second)
	h.waitMade("images/b.tar", second)
	h.Check(h.Cloud.Notify(t.Context()))
	h.Consumer("submit", "images/b.tar")
	h.Consumer("backfill")
	h.WaitDrained()
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		if images := h.ImagesOf(key); len(images) != 1 {
			t.Errorf("%d images of %s: %+v", len(images), key, images)
		}
	}
	h.Stop()
	h.Look()
}
