package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace/noop"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
)

// connected are the clients of a configuration.
func connected(t *testing.T, env map[string]string) (config, *s3.Client, *sqs.Client) {
	t.Helper()
	cfg, err := configured(t, env)
	if err != nil {
		t.Fatal(err)
	}
	s := &system{cfg: cfg, log: zerolog.Nop(), traces: noop.NewTracerProvider()}
	s3c, sqsc, err := s.clients(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg, s3c, sqsc
}

func withKeys(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

// Only the service's own endpoint is set, as the AWS CLI and the SDKs document it: S3 is
// asked in path style, as with AWS_ENDPOINT_URL.
func TestServiceEndpoint(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Run(name, func(t *testing.T) {
			withKeys(t)
			var mu sync.Mutex
			var asked []string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, r.URL.Path)
				w.WriteHeader(http.StatusNotFound)
			}))
			defer srv.Close()
			url := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
			_, c, _ := connected(t, map[string]string{"S3_BUCKET": "demo", "SQS_QUEUE_URL": url + "/0/q", name: url})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("demo"), Key: aws.String("images/a.tar")})
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(asked, "/demo/images/a.tar") {
				t.Errorf("asked for %v: %v", asked, err)
			}
		})
	}
}

type doerFunc func(*http.Request) (*http.Response, error)

func (d doerFunc) Do(r *http.Request) (*http.Response, error) { return d(r) }

// The queue's URL names a region, and AWS_REGION is not set: the request goes there and
// is signed for it.
func TestQueueRegion(t *testing.T) {
	withKeys(t)
	host, signed := asked(t,
		map[string]string{"SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/111122223333/images"})
	if host != "sqs.eu-west-1.amazonaws.com" || !strings.Contains(signed, "/eu-west-1/") {
		t.Errorf("sent to %s, signed %.80s", host, signed)
	}
}

// There are no credentials, and the machine's metadata service has no role or refuses:
// the error's class is denied, which says so, and never not_found.
func TestNoCredentials(t *testing.T) {
	for name, status := range map[string]int{"no role": 404, "refused": 403, "busy": 503, "throttled": 429} {
		t.Run(name, func(t *testing.T) {
			withoutKeys(t)
			imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
					fmt.Fprint(w, "token")
					return
				}
				w.WriteHeader(status)
			}))
			defer imds.Close()
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.URL)
			allDenied(t)
		})
	}
	t.Run("token file missing", func(t *testing.T) {
		withoutKeys(t)
		t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/images")
		t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(t.TempDir(), "none"))
		allDenied(t)
	})
	t.Run("metadata service off", func(t *testing.T) {
		withoutKeys(t)
		t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
		allDenied(t)
	})
}

func withoutKeys(t *testing.T) {
	t.Helper()
	for _, k := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED",
		"AWS_PROFILE",
	} {
		t.Setenv(k, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
}

// allDenied checks that neither client gets as far as a request, and says so.
func allDenied(t *testing.T) {
	t.Helper()
	cfg, s3c, c := connected(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(cfg.QueueURL)},
		func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	if got := awserr.Classify(err); got != awserr.Credentials {
		t.Errorf("receive: class %q: %v", got, err)
	}
	d, err := download.New(download.NewRegional(s3c), download.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Fetch(ctx, "1.tar", download.Object{Bucket: "demo", Key: "images/a.tar", Size: 10}, nil)
	if got := awserr.Classify(err); got != awserr.Credentials {
		t.Errorf("download: class %q: %v", got, err)
	}
	for _, fact := range []error{download.ErrGone, download.ErrNoBucket, download.ErrDenied, download.ErrChanged} {
		if errors.Is(err, fact) {
			t.Errorf("download: S3 was never asked, and is said to have answered %q: %v", fact, err)
		}
	}
}

// A profile that is not there is a slip in the configuration.
func TestNoProfile(t *testing.T) {
	withoutKeys(t)
	t.Setenv("AWS_PROFILE", "none")
	cfg, err := configured(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = (&system{cfg: cfg, log: zerolog.Nop(), traces: noop.NewTracerProvider()}).clients(t.Context())
	if code := report(err, io.Discard); code != 2 {
		t.Errorf("exit code %d: %v", code, err)
	}
}

// Where no endpoint of SQS is configured, requests go to the host of the queue's URL
// unless that is a regional one: an emulator's, a VPC endpoint, FIPS.
func TestQueueHost(t *testing.T) {
	withKeys(t)
	for _, c := range []struct{ url, want string }{
		{"http://localhost:9324/queue/images", "localhost:9324"},
		{
			"https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com/111122223333/images",
			"vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com",
		},
		{"https://sqs-fips.us-west-2.amazonaws.com/111122223333/images", "sqs-fips.us-west-2.amazonaws.com"},
		{"https://us-west-2.queue.amazonaws.com/111122223333/images", "sqs.us-west-2.amazonaws.com"},
		{"https://sqs.cn-north-1.amazonaws.com.cn/111122223333/images", "sqs.cn-north-1.amazonaws.com.cn"},
	} {
		if host, signed := asked(t, map[string]string{"SQS_QUEUE_URL": c.url}); host != c.want {
			t.Errorf("%s: sent to %s, signed %.80s", c.url, host, signed)
		}
	}
	if host, _ := asked(t, map[string]string{
		"SQS_QUEUE_URL":        "http://localhost:9324/queue/images",
		"AWS_ENDPOINT_URL_SQS": "http://other:1",
	}); host != "other:1" {
		t.Errorf("the endpoint that is set is not asked, but %s", host)
	}
}

// asked is the host that a poll goes to, and how it is signed.
func asked(t *testing.T, env map[string]string) (host, signed string) {
	t.Helper()
	cfg, _, c := connected(t, env)
	_, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(cfg.QueueURL)},
		func(o *sqs.Options) {
			o.Retryer = aws.NopRetryer{}
			o.HTTPClient = doerFunc(func(r *http.Request) (*http.Response, error) {
				host, signed = r.URL.Host, r.Header.Get("Authorization")
				return nil, errors.New("not sent")
			})
		})
	if host == "" {
		t.Error(err)
	}
	return host, signed
}

// The clock is wrong by an hour, and is then put right: each time one poll fails at most,
// and no download.
func TestClockSkew(t *testing.T) {
	withKeys(t)
	var mu sync.Mutex
	off := time.Hour
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now := time.Now().Add(off)
		mu.Unlock()
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		toSQS := r.Header.Get("X-Amz-Target") != ""
		if toSQS {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		}
		signed, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		switch skewed := now.Sub(signed).Abs() > 5*time.Minute; {
		case skewed && toSQS:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w,
				`{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Signature expired"}`)
		case skewed:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w,
				`<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>`)
		case toSQS:
			fmt.Fprint(w, `{}`)
		default:
			w.Header().Set("ETag", `"e"`)
			_, _ = io.WriteString(w, "0123456789")
		}
	}))
	defer srv.Close()
	cfg, s3c, sqsc := connected(t, map[string]string{
		"S3_BUCKET": "demo", "SQS_QUEUE_URL": srv.URL + "/0/q",
		"AWS_ENDPOINT_URL": srv.URL,
	})
	q := queue.New(sqsc, queue.Config{URL: cfg.QueueURL, Wait: time.Second})
	d, err := download.New(download.NewRegional(s3c), download.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []time.Duration{time.Hour, 0} {
		mu.Lock()
		off = o
		mu.Unlock()
		failed := 0
		for range 3 {
			if _, err := q.Receive(t.Context(), 1); err != nil {
				failed++
				t.Logf("clock off by %s: %v", o, err)
			}
		}
		if failed > 1 {
			t.Errorf("clock off by %s: %d of 3 polls fail", o, failed)
		}
		if _, err := d.Fetch(t.Context(), "1.tar", download.Object{Bucket: "demo", Key: "images/a.tar", Size: 10},
			nil); err != nil {
			t.Errorf("clock off by %s: download: %v", o, err)
		}
	}
}
