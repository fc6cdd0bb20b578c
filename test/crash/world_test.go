package crash

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/test/emulator"
)

// world is S3 and SQS during one boot, and the host that uses them.
type world struct {
	emu    *emulator.Server
	srv    *httptest.Server
	s3     *s3.Client
	sqs    *sqs.Client
	bucket string // of the present host
	queue  string
	host   *host

	mu      sync.Mutex
	handles map[string]string // receipt handle to key
}

// theWorld returns the emulator of this boot.
func theWorld(t *testing.T) *world {
	t.Helper()
	needGuest(t)
	if book.world != nil {
		return book.world
	}
	w := &world{handles: map[string]string{}}
	emu, err := emulator.New(emulator.Config{Dir: os.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w.emu, w.srv = emu, httptest.NewServer(http.HandlerFunc(w.serve))
	w.srv.Config.Handler = http.HandlerFunc(w.serve)
	creds := credentials.NewStaticCredentialsProvider("x", "x", "")
	w.s3 = s3.New(s3.Options{Region: "us-east-1", Credentials: creds, BaseEndpoint: aws.String(w.srv.URL), UsePathStyle: true})
	w.sqs = sqs.New(sqs.Options{Region: "us-east-1", Credentials: creds, BaseEndpoint: aws.String(w.srv.URL)})
	book.world = w
	return w
}

func (w *world) close() {
	_ = w.emu.Close() // its files are the guest's
	w.srv.Close()
}

// serve watches which messages are received and deleted. That a message is deleted is in the ledger before the daemon knows it.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if op != "ReceiveMessage" && op != "DeleteMessageBatch" {
		w.emu.ServeHTTP(rw, r)
		return
	}
	in, err := io.ReadAll(r.Body)
	if err != nil {
		return // the daemon was killed
	}
	r.Body = io.NopCloser(bytes.NewReader(in))
	answer := httptest.NewRecorder()
	w.emu.ServeHTTP(answer, r)
	if op == "ReceiveMessage" {
		w.received(answer.Body.Bytes())
	} else {
		w.deleted(in, answer.Body.Bytes())
	}
	for name, values := range answer.Header() {
		rw.Header()[name] = values
	}
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes()) // likewise
}

func (w *world) received(answer []byte) {
	var out struct {
		Messages []struct{ ReceiptHandle, Body string }
	}
	must(json.Unmarshal(answer, &out))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range out.Messages {
		var event struct {
			Records []struct {
				S3 struct{ Object struct{ Key string } }
			}
		}
		must(json.Unmarshal([]byte(m.Body), &event))
		for _, r := range event.Records {
			key, err := url.QueryUnescape(r.S3.Object.Key)
			must(err)
			w.handles[m.ReceiptHandle] = key
		}
	}
}

func (w *world) deleted(request, answer []byte) {
	var in struct {
		Entries []struct{ Id, ReceiptHandle string } //nolint:revive // SQS's names
	}
	var out struct {
		Successful []struct{ Id string } //nolint:revive // SQS's name
	}
	must(json.Unmarshal(request, &in))
	must(json.Unmarshal(answer, &out))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range out.Successful {
		for _, e := range in.Entries {
			if key := w.handles[e.ReceiptHandle]; e.Id == s.Id && key != "" {
				book.Deleted[key] = true
			}
		}
	}
	book.save()
}

// isDeleted tells whether the daemon has deleted a message about the key.
func (w *world) isDeleted(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return book.Deleted[key]
}

// must is for what cannot fail unless this program is wrong.
func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // in a handler there is no test to fail
	}
}

// open makes bucket and queue of the present host. After a reboot it gets its objects back without a word to the queue: whose message
// is still to come is told by redeliver.
func (w *world) open(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	w.bucket = fmt.Sprintf("crash-%d", book.Hosts)
	q, err := w.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(w.bucket)})
	check(t, err)
	w.queue = *q.QueueUrl
	_, err = w.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(w.bucket)})
	check(t, err)
	for _, key := range book.Keys {
		w.upload(t, key)
	}
	_, err = w.s3.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(w.bucket),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: []s3types.QueueConfiguration{{
			QueueArn: aws.String("arn:aws:sqs:us-east-1:" + emulator.Account + ":" + w.bucket), Events: []s3types.Event{"s3:ObjectCreated:*"},
		}}},
	})
	check(t, err)
	_, err = w.sqs.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: q.QueueUrl}) // of the test event: every start is to have the same to do
	check(t, err)
}

// put uploads a new object.
func (w *world) put(t *testing.T, key string) {
	t.Helper()
	if !slices.Contains(book.Keys, key) {
		book.Keys = append(book.Keys, key)
		book.save()
	}
	w.upload(t, key)
}

// upload uploads the object that the key stands for: images/<files>-<name>.tar, with so many files. The queue is told.
func (w *world) upload(t *testing.T, key string) {
	t.Helper()
	_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(w.bucket), Key: aws.String(key), Body: bytes.NewReader(image(key))})
	check(t, err)
}

// refused tells whether the key stands for no archive at all.
func refused(key string) bool { return strings.HasPrefix(key, "images/refused-") }

// image is a root file system whose etc/hello holds the key.
func image(key string) []byte {
	if refused(key) {
		return []byte(key)
	}
	var files int
	_, err := fmt.Sscanf(key, "images/%d-", &files)
	must(err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, body string, kind byte) {
		must(w.WriteHeader(&tar.Header{
			Name: name, Mode: 0o755, Size: int64(len(body)), ModTime: time.Unix(1700000000, 0), Format: tar.FormatUSTAR, Typeflag: kind,
		}))
		_, err := w.Write([]byte(body))
		must(err)
	}
	for _, dir := range []string{"etc/", "usr/", "var/"} {
		add(dir, "", tar.TypeDir)
	}
	add("etc/hello", key, tar.TypeReg)
	text := strings.Repeat(key, 1000)
	for i := range files {
		add(fmt.Sprintf("usr/%05d", i), text, tar.TypeReg)
	}
	must(w.Close())
	return b.Bytes()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		book.failed(t, err.Error())
		t.Fatal(err)
	}
}

// eventually polls until cond holds, for a minute.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // the guest has one CPU, for the daemon too
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			check(t, fmt.Errorf("not in time: %s", what))
		}
	}
}
