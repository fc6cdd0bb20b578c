// Package e2e runs the real daemon against a real thin pool and an emulated S3 and SQS.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
)

// host is one machine: a state directory, a pool, a daemon; and the S3 and SQS it talks to.
type host struct {
	t      *testing.T
	dir    string
	emu    *emulator.Server // nil when the tests run against another S3 and SQS
	bucket string
	url    string
	s3     *s3.Client
	sqs    *sqs.Client
	queue  string
	env    []string
	store  *store.Store
	daemon *exec.Cmd
	log    *os.File
	began  int64 // where the log of the newest start begins

	unclaimed map[string]int // by kind: what the test put there, and no row of the journal claims
}

// manyForeign: more or less of them, while the daemon looks.
const manyForeign = -1

// needPool skips where there is no thin pool and nobody insists on one; `make test-uml` does.
func needPool(t *testing.T) {
	t.Helper()
	err := devmapper.Probe()
	if err == nil {
		return
	}
	if os.Getenv("CIM_REQUIRE_DM") == "1" {
		t.Fatalf("a thin pool is required: %v", err)
	}
	t.Skipf("needs a thin pool, run by `make test-uml`: %v", err)
}

// newHost makes the bucket, the queue and the pool. env overrides the daemon's settings.
func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	return newSizedHost(t, "2GiB", env...)
}

// newSizedHost is newHost with a pool of that size.
func newSizedHost(t *testing.T, size string, env ...string) *host {
	t.Helper()
	h := bareHost(t)
	h.install(poolName(t), size, env)
	return h
}

// bareHost makes the bucket and the queue, and neither state directory nor pool.
func bareHost(t *testing.T) *host {
	t.Helper()
	needPool(t)
	h := &host{t: t, dir: t.TempDir(), bucket: "e2e-" + uuid.NewString(), url: os.Getenv("E2E_ENDPOINT_URL")}
	if h.url == "" {
		h.emulate()
	}
	h.makeQueue()
	return h
}

// emulate starts an S3 and SQS of the test's own.
func (h *host) emulate() {
	var err error
	h.emu, err = emulator.New(emulator.Config{Dir: h.t.TempDir()})
	h.check(err)
	srv := httptest.NewServer(h.emu)
	h.t.Cleanup(func() {
		if err := h.emu.Close(); err != nil {
			h.t.Error(err)
		}
		srv.Close()
	})
	h.url = srv.URL
}

// faulty returns the emulator, for tests that make it fail. Another S3 and SQS cannot be made to: the test is skipped there, and only
// there.
func (h *host) faulty() *emulator.Server {
	h.t.Helper()
	if h.emu == nil {
		h.t.Skip("E2E_ENDPOINT_URL is set: only the emulator fails on demand")
	}
	return h.emu
}

// another makes one more machine with a pool of its own, on the same queue.
func (h *host) another(name string, env ...string) *host {
	h.t.Helper()
	more := &host{t: h.t, dir: h.t.TempDir(), emu: h.emu, bucket: h.bucket, url: h.url, s3: h.s3, sqs: h.sqs, queue: h.queue}
	more.install(name, "2GiB", env)
	return more
}

// install makes the machine's state directory and pool; args are for `pool create`.
func (h *host) install(pool, size string, env []string, args ...string) {
	h.t.Helper()
	h.unclaimed = map[string]int{}
	h.env = append(os.Environ(),
		"AWS_ENDPOINT_URL="+h.url, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "S3_BUCKET="+h.bucket, "SQS_QUEUE_URL="+h.queue,
		"STATE_DIR="+filepath.Join(h.dir, "state"), "LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug",
		"DEVICE_SIZE=256MiB", "SQS_WAIT=1s", "SQS_VISIBILITY=10s", "RETRY_BACKOFF=1ms", "SHUTDOWN_GRACE=1s",
		"RECONCILE_INTERVAL=1s")
	h.env = append(h.env, env...)
	var err error
	if h.log, err = os.Create(filepath.Join(h.dir, "daemon.log")); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.end)
	h.consumer(append([]string{"pool", "create", "--name", pool, "--data-size", size, "--thins", "100"}, args...)...)
	if h.store, err = store.OpenExisting(h.t.Context(), filepath.Join(h.dir, "state", "consumer.db")); err != nil {
		h.t.Fatal(err)
	}
}

// poolName is short and unique: tests may run one after the other in one kernel.
func poolName(t *testing.T) string {
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)[:min(len(name), 24)]
}

// plainBodies is what cmd/consumer does for the same reason: see there.
type plainBodies struct{ aws.HTTPClient }

func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}

func (h *host) makeQueue() {
	h.t.Helper()
	ctx := h.t.Context()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithHTTPClient(awshttp.NewBuildableClient()),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("x", "x", "")), config.WithBaseEndpoint(h.url))
	h.check(err)
	cfg.HTTPClient = plainBodies{cfg.HTTPClient}
	h.s3 = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	h.sqs = sqs.NewFromConfig(cfg)
	q, err := h.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(h.bucket)})
	h.check(err)
	h.queue = *q.QueueUrl
	_, err = h.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(h.bucket)})
	h.check(err)
	a, err := h.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: q.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	h.check(err)
	_, err = h.s3.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(h.bucket),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: []s3types.QueueConfiguration{{
			QueueArn: aws.String(a.Attributes["QueueArn"]), Events: []s3types.Event{"s3:ObjectCreated:*"},
		}}},
	})
	h.check(err)
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// consumer runs a command that must succeed and returns what it prints.
func (h *host) consumer(args ...string) string {
	h.t.Helper()
	out, code := h.try(args...)
	if code != 0 {
		h.t.Fatalf("consumer %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// try runs a command and returns what it prints and its exit code.
func (h *host) try(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(program(h.t), args...)
	cmd.Env = h.env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return out.String() + errOut.String(), cmd.ProcessState.ExitCode()
}

// program is the consumer that the Makefile built.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CONSUMER_BIN")
	if path == "" {
		t.Fatal("CONSUMER_BIN is not set: run `make test-uml`, or build ./cmd/consumer with -tags failpoint and name it there")
	}
	return path
}

// start starts the daemon; env is for this start only.
func (h *host) start(env ...string) {
	h.t.Helper()
	h.daemon = exec.Command(program(h.t), "run")
	h.daemon.Env = append(slices.Clone(h.env), env...)
	h.daemon.Stderr = h.log
	var err error
	h.began, err = h.log.Seek(0, io.SeekEnd)
	h.check(err)
	h.check(h.daemon.Start())
}

// running waits until the daemon started last has recovered and takes messages.
func (h *host) running() {
	h.t.Helper()
	h.eventually("the daemon runs", func() bool {
		return bytes.Contains(h.newest(), []byte(`"message":"running"`))
	})
}

// stop ends the daemon by SIGTERM; it must exit with 0.
func (h *host) stop() {
	h.t.Helper()
	h.running() // before, it does not listen to signals yet
	h.claimed()
	h.check(h.daemon.Process.Signal(syscall.SIGTERM))
	if err := h.daemon.Wait(); err != nil {
		h.t.Errorf("daemon: %v", err)
	}
	h.daemon = nil
}

// newest returns what the daemon started last has logged.
func (h *host) newest() []byte {
	h.t.Helper()
	text, err := os.ReadFile(h.log.Name())
	h.check(err)
	return text[h.began:]
}

// get asks the running daemon.
func (h *host) get(path string) (code int, body string) {
	h.t.Helper()
	h.running()
	addr := regexp.MustCompile(`"addr":"([^"]+)"`).FindSubmatch(h.newest())
	if addr == nil {
		h.t.Fatal("the log has no address")
	}
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+string(addr[1])+path, http.NoBody)
	h.check(err)
	resp, err := http.DefaultClient.Do(req)
	h.check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	h.check(err)
	return resp.StatusCode, string(text)
}

// claimed waits until the running daemon's gauges know of nothing that no row of the journal claims, but what the test put there: they
// are as of its last reconcile.
func (h *host) claimed() {
	h.t.Helper()
	h.eventually("the gauges of what is unclaimed are right", func() bool {
		_, text := h.get("/metrics")
		gauges := regexp.MustCompile(`(?m)^imagemanager_unclaimed\{kind="(\w+)"\} (\d+)$`).FindAllStringSubmatch(text, -1)
		wrong := len(gauges) != 5
		for _, g := range gauges {
			want := h.unclaimed[g[1]]
			wrong = wrong || want != manyForeign && g[2] != strconv.Itoa(want)
		}
		return !wrong
	})
}

// crashed waits for a daemon that is to kill itself at a failpoint, and tells whether it did. A daemon that was not killed
// within the time is stopped.
func (h *host) crashed(within time.Duration) bool {
	h.t.Helper()
	stop := time.AfterFunc(within, func() { _ = h.daemon.Process.Signal(syscall.SIGTERM) })
	defer stop.Stop()
	err := h.daemon.Wait()
	h.daemon = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		st, ok := exit.Sys().(syscall.WaitStatus)
		return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
	}
	return false
}

// kill is a power cut for the process.
func (h *host) kill() {
	h.t.Helper()
	h.check(h.daemon.Process.Kill())
	_ = h.daemon.Wait() // the error says that it was killed
	h.daemon = nil
}

// end detaches the pool, whatever state the test left, and shows the log of a failed test.
func (h *host) end() {
	if h.daemon != nil {
		h.kill()
	}
	if h.store != nil {
		h.check(h.store.Close())
	}
	if out, code := h.try("pool", "detach"); code != 0 {
		h.t.Errorf("pool detach: %d %s", code, out)
	}
	if h.t.Failed() {
		text, _ := os.ReadFile(h.log.Name())
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
				h.t.Logf("daemon log: %s", line)
			}
		}
		h.t.Logf("daemon log, its end:\n%s", text[max(0, len(text)-16000):])
	}
	h.check(h.log.Close())
}

func (h *host) put(key string, body []byte) {
	h.t.Helper()
	_, err := h.s3.PutObject(h.t.Context(), &s3.PutObjectInput{Bucket: aws.String(h.bucket), Key: aws.String(key), Body: bytes.NewReader(body)})
	h.check(err)
}

// eventually polls until cond holds; it fails the test after a minute.
func (h *host) eventually(what string, cond func() bool) {
	h.t.Helper()
	h.eventuallyWithin(0, what, cond)
}

// eventuallyWithin gives a minute, and 50 ms more for each of n.
func (h *host) eventuallyWithin(n int, what string, cond func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute+time.Duration(n)*50*time.Millisecond)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("not in time: %s", what)
		}
	}
}

// ends waits until the key's newest image is terminal, and returns it.
func (h *host) ends(key string) store.Image {
	h.t.Helper()
	var img store.Image
	h.eventually(key+" ends", func() bool {
		images, err := h.store.ByKey(h.t.Context(), key)
		h.check(err)
		if len(images) > 0 {
			img = images[len(images)-1]
		}
		return len(images) > 0 && img.State != store.Pending
	})
	return img
}

// active waits until the key's image is active.
func (h *host) active(key string) store.Image {
	h.t.Helper()
	img := h.ends(key)
	if img.State != store.Active {
		h.t.Fatalf("%s ended %s: %s", key, img.State, img.Reason)
	}
	return img
}

// drained waits until the queue holds nothing, visible or in flight.
func (h *host) drained() {
	h.t.Helper()
	h.eventually("the queue is empty", h.isDrained)
}

func (h *host) isDrained() bool {
	h.t.Helper()
	a, err := h.sqs.GetQueueAttributes(h.t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl:       aws.String(h.queue),
		AttributeNames: []sqstypes.QueueAttributeName{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"},
	})
	h.check(err)
	return a.Attributes["ApproximateNumberOfMessages"] == "0" && a.Attributes["ApproximateNumberOfMessagesNotVisible"] == "0"
}

// whole checks, while no daemon changes anything, that the journal, the pool and the blob directory agree and that nothing of
// ours is left over.
func (h *host) whole() {
	h.t.Helper()
	ctx := h.t.Context()
	row, err := h.store.Pool(ctx)
	h.check(err)
	pool, err := devmapper.Open(h.t.Context(), devmapper.Config{Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata, BlockSize: row.BlockSize})
	h.check(err)
	defer pool.Close()
	devices, err := h.store.Devices(ctx)
	h.check(err)
	want, active := map[devmapper.ID]bool{}, map[devmapper.ID]bool{}
	for _, d := range devices {
		want[devmapper.ID(d.ID)] = true
		if d.State != store.Ready {
			h.t.Errorf("device %d is %s", d.ID, d.State)
		}
		if d.Kind == store.SnapshotDevice {
			active[devmapper.ID(d.ID)] = true
		}
	}
	thins, err := pool.Thins()
	h.check(err)
	for _, th := range thins {
		if !want[th.ID] {
			h.t.Errorf("thin device %d is in the pool and not in the journal", th.ID)
		}
		delete(want, th.ID)
	}
	for id := range want {
		h.t.Errorf("thin device %d is in the journal and not in the pool", id)
	}
	found, err := pool.Active()
	h.check(err)
	for _, d := range found {
		if !active[d.ID] || d.HalfCreated || d.Suspended {
			h.t.Errorf("active device %s should not be: %+v", d.Name, d)
		}
		delete(active, d.ID)
	}
	for id := range active {
		h.t.Errorf("snapshot %d is not active", id)
	}
	h.wholeJournal()
	h.wholeBlobs()
}

// wholeJournal checks that every image's row is the fold of its events.
func (h *host) wholeJournal() {
	h.t.Helper()
	images, err := h.store.Images(h.t.Context())
	h.check(err)
	for _, img := range images {
		events, err := h.store.History(h.t.Context(), img.ID)
		h.check(err)
		p, err := store.Fold(events)
		h.check(err)
		a, b := mustJSON(p), mustJSON(img.Progress)
		if a != b {
			h.t.Errorf("image %d: fold %s, row %s", img.ID, a, b)
		}
	}
}

// wholeBlobs checks that the blob directory holds the archives of the active images and nothing else.
func (h *host) wholeBlobs() {
	h.t.Helper()
	images, err := h.store.Images(h.t.Context())
	h.check(err)
	claimed := map[string]bool{}
	for _, img := range images {
		if img.State == store.Active {
			claimed[img.Blob.Path] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "state", "blobs", "*"))
	h.check(err)
	for _, f := range files {
		if !claimed[f] {
			h.t.Errorf("file %s belongs to no image", f)
		}
		delete(claimed, f)
	}
	for f := range claimed {
		h.t.Errorf("archive %s is missing", f)
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// hello returns what a snapshot's /etc/hello holds.
func (h *host) hello(snapshot string) string {
	h.t.Helper()
	text, err := readHello(snapshot)
	h.check(err)
	return text
}

func readHello(snapshot string) (string, error) {
	m, err := devmapper.MountDetached(snapshot, devmapper.MountInspect)
	if err != nil {
		return "", err
	}
	defer m.Close()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()))
	if err != nil {
		return "", err
	}
	defer root.Close()
	text, err := root.ReadFile("rootfs/etc/hello")
	return string(text), err
}
