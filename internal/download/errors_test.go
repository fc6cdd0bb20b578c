package download

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// Whatever a proxy, a load balancer or a captive portal answers in S3's place: it is no
// fact about an object, and what there is of it stays.
func TestProxyTellsNothing(t *testing.T) {
	xhtml := `<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">` +
		`<head><title>no</title></head><body/></html>`
	text := []string{"Content-Type", "text/plain", "ETag", `"5d52b17f-264"`}
	for name, answer := range map[string]http.HandlerFunc{
		"200":             bare(200, page),
		"200, no type":    bare(200, "down", "Content-Type", "application/octet-stream"),
		"200, with ETag":  bare(200, page, "ETag", `"5d52b17f-264"`),
		"200, plain":      bare(200, "down", text...),
		"206, plain":      bare(206, "down", text...),
		"200, empty":      bare(200, ""),
		"204":             bare(204, ""),
		"302":             bare(302, page, "Location", "https://login.example/"),
		"303, no body":    bare(303, "", "Location", "/login"),
		"400":             bare(400, page),
		"401":             bare(401, page),
		"403":             bare(403, page),
		"403, no body":    bare(403, ""),
		"403, XHTML":      bare(403, xhtml, "Content-Type", "application/xhtml+xml"),
		"404":             bare(404, page),
		"404, no body":    bare(404, ""),
		"404, JSON":       bare(404, `{"error":"NoSuchKey"}`, "Content-Type", "application/json"),
		"404, other XML":  bare(404, "<error><status>404</status></error>", "Content-Type", "application/xml"),
		"405":             bare(405, page),
		"407":             bare(407, page, "Proxy-Authenticate", "Basic"),
		"410":             bare(410, page),
		"412":             bare(412, page),
		"412, no body":    bare(412, ""),
		"416":             bare(416, page),
		"451, with ETag":  bare(451, page, "ETag", `"5d52b17f-264"`),
		"404, CloudFront": bare(404, page, "X-Amz-Cf-Id", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			api := client(t, answer)
			bucket := NewBucket(api, bucket, prefix)
			_, headed := bucket.Head(t.Context(), key)
			_, _, listed := bucket.Page(t.Context(), "")
			seen := map[string]error{"probe": bucket.Probe(t.Context()), "list": listed}
			if !strings.HasSuffix(name, "plain") { // a HEAD has too little to tell that apart
				seen["head"] = headed
			}
			for what, obj := range map[string]Object{
				"small": notified(len(payload)), "large": notified(4 * wide), "no size": notified(0),
				"version": {Bucket: "b", Key: key, VersionID: "v1", ETag: tag, Size: 9},
			} {
				d := downloader(t, api, small())
				_, seen[what] = d.Fetch(t.Context(), "1.tar", obj, nil)
				wantFiles(t, d)
			}
			for what, err := range seen {
				for _, s := range sentinels {
					if errors.Is(err, s) != (s == ErrNotS3) { //nolint:errorlint // the sentinel itself
						t.Errorf("%s: %v: is %v: %t", what, err, s, errors.Is(err, s))
					}
				}
				if Scope(err) != AllObjects {
					t.Errorf("%s: the scope of %v is %d", what, err, Scope(err))
				}
			}
		})
	}
}

// Progress outlives a proxy that answers for a while, to the HEAD or to the parts.
func TestProgressOutlivesProxy(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"page": bare(200, page), "not found": bare(404, page), "ill": bare(502, page), "empty": bare(200, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			o := &origin{t: t, data: noise(4 * wide)}
			d := interrupted(t, o, notified(len(o.data)))
			d.api = client(t, answer)
			if _, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil); Scope(err) != AllObjects {
				t.Errorf("%v is of scope %d", err, Scope(err))
			}
			wantFiles(t, d, "1.tar.part")
			d.api = client(t, o)
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
			if n := o.asked(); n > int64(len(o.data)-wide-part) {
				t.Errorf("%d of %d bytes asked for again", n, len(o.data))
			}
		})
	}
}

// The first thing that an error says is S3's code and reason: tables cut what is long.
func TestErrorBeginsWithCode(t *testing.T) {
	for code, want := range map[string]string{
		"InvalidRequest": "S3 refuses this object: InvalidRequest: no (GetObject, status 400",
		"InternalError":  "InternalError: no (GetObject, status 400",
	} {
		_, err := downloader(t, client(t, failing(400, code)), Config{}).Fetch(t.Context(), "1.tar", notified(9), nil)
		var api smithy.APIError
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.As(err, &api) || api.ErrorCode() != code {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Without credentials nothing is asked, and it is not for want of an object or a bucket.
func TestNoCredentials(t *testing.T) {
	for name, status := range map[string]int{"no role": 404, "refused": 403} {
		t.Run(name, func(t *testing.T) {
			_, url := clientAndURL(t,
				http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("S3 was asked") }))
			imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				if r.Method == http.MethodPut {
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
					fmt.Fprint(w, "token")
					return
				}
				w.WriteHeader(status)
			}))
			defer imds.Close()
			for k, v := range map[string]string{
				"AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
				"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.URL,
			} {
				t.Setenv(k, v)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			api, err := clientOf(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			_, err = downloader(t, api, Config{}).Fetch(ctx, "1.tar", notified(9), nil)
			if !errors.Is(err, ErrCredentials) || errors.Is(err, ErrDenied) || Scope(err) != AllObjects {
				t.Errorf("%v, of scope %d", err, Scope(err))
			}
			if err := NewBucket(api, bucket, prefix).Probe(ctx); !errors.Is(err, ErrCredentials) {
				t.Errorf("probe: %v", err)
			}
		})
	}
}

func TestETag(t *testing.T) {
	for given, want := range map[string]string{
		tag: tag, `"` + tag + `"`: tag, `W/"` + tag + `"`: tag, ` "` + tag + `" `: tag,
		`"` + tag + `-gzip"`: tag, `W/"` + tag + `--gzip"`: tag,
		`"` + tag + `-12"`: tag + "-12", `W/"` + tag + `-12-br"`: tag + "-12", "": "", `""`: "", `W/""`: "",
	} {
		if got := etag(aws.String(given)); got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
	if got := etag(nil); got != "" {
		t.Errorf("nil is %q", got)
	}
}

// Whom a failure concerns: what S3 says of one object leaves the others alone, and what
// is nobody's answer is everybody's trouble. An errno is the network's only if it is one
// of its.
func TestScope(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	fetch := func(h http.HandlerFunc) error {
		d := downloader(t, client(t, h), Config{Pause: time.Millisecond})
		_, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)), nil)
		return err
	}
	_ = client(t, object()) // sets the credentials of the environment
	nobody, err := clientOf(t.Context(), "http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	unknown := &net.DNSError{Err: "no such host", Name: "b.s3.invalid", IsNotFound: true}
	dial := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
	}
	for name, c := range map[string]struct {
		err  error
		want Extent
	}{
		"nothing":          {nil, Local},
		"denied":           {fetch(failing(403, "AccessDenied")), OneObject},
		"gone":             {fetch(failing(404, "NoSuchKey")), OneObject},
		"archived":         {fetch(failing(403, "InvalidObjectState")), OneObject},
		"KMS":              {fetch(failing(400, "KMS.NotFoundException")), OneObject},
		"SSE-C":            {fetch(failing(400, "InvalidRequest")), OneObject},
		"odd 4xx":          {fetch(failing(400, "InvalidArgument")), OneObject},
		"conflict":         {fetch(failing(409, "OperationAborted")), AllObjects},
		"cut":              {fetch(cut(true)), OneObject},
		"no bucket":        {fetch(failing(404, "NoSuchBucket")), AllObjects},
		"bad signature":    {fetch(failing(403, "SignatureDoesNotMatch")), AllObjects},
		"another region":   {fetch(failing(400, "AuthorizationHeaderMalformed")), AllObjects},
		"moved":            {fetch(failing(301, "PermanentRedirect")), AllObjects},
		"ill":              {fetch(failing(500, "InternalError")), AllObjects},
		"busy":             {fetch(failing(503, "SlowDown")), AllObjects},
		"throttled by 400": {fetch(failing(400, "ThrottlingException")), AllObjects},
		"429 of anybody":   {fetch(bare(429, page)), AllObjects},
		"502 of anybody":   {fetch(bare(502, page)), AllObjects},
		"400 to a HEAD":    {mustFail(NewBucket(client(t, bare(400, "", requestID, "1")), bucket, prefix)), AllObjects},
		"nobody there":     {mustFail(NewBucket(nobody, bucket, prefix)), AllObjects},
		"no name":          {fmt.Errorf("get: %w", unknown), AllObjects},
		"no route":         {dial(syscall.EHOSTUNREACH), AllObjects},
		"firewall":         {dial(syscall.EPERM), AllObjects},
		"stalled":          {ErrStalled, AllObjects},
		"no time":          {context.DeadlineExceeded, AllObjects},
		"stopped":          {context.Canceled, Local},
		"disk full":        {&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, Local},
		"disk: time-out":   {&fs.PathError{Op: "write", Path: "x", Err: syscall.ETIMEDOUT}, Local},
		"ENOSYS":           {syscall.ENOSYS, Local},
		"EPERM":            {fmt.Errorf("mount: %w", syscall.EPERM), Local},
		"ECONNRESET":       {syscall.ECONNRESET, AllObjects},
	} {
		if got := Scope(c.err); got != c.want {
			t.Errorf("%s: %v is of scope %d, want %d", name, c.err, got, c.want)
		}
	}
}

func mustFail(b *Bucket) error {
	_, err := b.Head(context.Background(), key)
	return err
}
