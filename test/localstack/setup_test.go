package localstack

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"imagemanager.internal/test/emulator"
)

// world is an emulator that looks at queue policies as AWS does, and a counter of the
// requests that it got.
type world struct {
	t        *testing.T
	emu      *emulator.Server
	url, cli string
	requests atomic.Int64
	deaf     atomic.Bool // it answers 200 to a bucket's notifications and stores nothing
	// how many times it still shows a bucket's notifications as they were before the
	// script wrote them: none
	blind atomic.Int64
}

// ServeHTTP is the emulator with what is wrong with it.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.requests.Add(1)
	notification := r.URL.Query().Has("notification")
	if notification && r.Method == http.MethodPut && w.deaf.Load() {
		return
	}
	if notification && r.Method == http.MethodGet && w.emu.Calls("PutBucketNotificationConfiguration") > 0 &&
		w.blind.Add(-1) >= 0 {
		fmt.Fprint(rw, `<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>`)
		return
	}
	w.emu.ServeHTTP(rw, r)
}

func newWorld(t *testing.T, region string) *world {
	t.Helper()
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir(), CheckPolicy: true, Region: region})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, emu: emu, cli: awsCLI(t)}
	srv := httptest.NewServer(w)
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	w.url = srv.URL
	return w
}

// env is what the script gets: no pauses, and no retries inside the CLI, so that the
// script's own can be counted.
func (w *world) env() []string {
	return []string{
		"AWS_CLI=" + w.cli, "AWS_ENDPOINT_URL=" + w.url, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_MAX_ATTEMPTS=1", "SETUP_PAUSE=0", "SETUP_TRIES=3",
	}
}

// send makes one request to the emulator, without the CLI, which takes a second to start.
func (w *world) send(method, path, sqsOperation, body string) string {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if sqsOperation != "" {
		r.Header.Set("X-Amz-Target", "AmazonSQS."+sqsOperation)
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s %s: %s %v %s", method, path, sqsOperation, answer.Status, err, text)
	}
	return string(text)
}

// sqs calls an operation of SQS on a queue; more are further members of its input.
func (w *world) sqs(operation, queue, more string) string {
	w.t.Helper()
	return w.send(http.MethodPost, "/", operation, fmt.Sprintf(`{"QueueUrl":%q%s}`, w.queueURL(queue), more))
}

func (w *world) queueURL(name string) string { return w.url + "/" + emulator.Account + "/" + name }

// attributes are those of a queue that the script sets, and its ARN.
func (w *world) attributes(queue string) map[string]string {
	w.t.Helper()
	var answer struct{ Attributes map[string]string }
	w.decode(w.sqs("GetQueueAttributes", queue, `,"AttributeNames":["All"]`), &answer)
	for name := range answer.Attributes {
		if strings.HasSuffix(name, "Timestamp") || strings.HasPrefix(name, "Approximate") {
			delete(answer.Attributes, name)
		}
	}
	return answer.Attributes
}

// notifications is the bucket's configuration, in XML.
func (w *world) notifications() string {
	w.t.Helper()
	return w.send(http.MethodGet, "/container-images?notification", "", "")
}

func (w *world) decode(text string, into any) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		w.t.Fatalf("%v in %s", err, text)
	}
}

// announced puts the objects and returns the keys that the queue then hears of, without
// test events.
func (w *world) announced(keys ...string) []string {
	w.t.Helper()
	w.sqs("PurgeQueue", "images", "")
	for _, key := range keys {
		w.send(http.MethodPut, "/container-images/"+key, "", "x")
	}
	w.emu.Flush()
	text := w.sqs("ReceiveMessage", "images", `,"MaxNumberOfMessages":10,"WaitTimeSeconds":1`)
	var heard []string
	for _, m := range regexp.MustCompile(`\\"key\\": ?\\"([^"\\]*)\\"`).FindAllStringSubmatch(text, -1) {
		heard = append(heard, m[1])
	}
	return heard
}

var settings = regexp.MustCompile(`\A([A-Z0-9_]+=\S*\n)+\z`)

// The hook, run twice, leaves what the daemon needs, the second time as the first.
func TestHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	first := succeed(t, w.env(), hook)
	replayDryRun(t, w)
	made := w.state()
	second := succeed(t, w.env(), hook)

	if first.out != second.out || !settings.MatchString(first.out) {
		t.Errorf("printed %q, then %q: not the same settings", first.out, second.out)
	}
	for _, line := range []string{
		"S3_BUCKET=container-images", "SQS_QUEUE_URL=" + w.queueURL("images"),
		"SQS_DEAD_LETTER_URL=" + w.queueURL("images-dlq"),
	} {
		if !strings.Contains(first.out, line+"\n") {
			t.Errorf("%q is not among the settings:\n%s", line, first.out)
		}
	}
	if again := w.state(); again != made {
		t.Errorf("the second run changed\n%s\nto\n%s", made, again)
	}
	for op, want := range map[string]int{"CreateBucket": 1, "CreateQueue": 2} {
		if got := w.emu.Calls(op); got != want {
			t.Errorf("%d × %s in two runs, want %d", got, op, want)
		}
	}
	w.checkQueues()
	if got := w.announced("other/x.tar", "images/x.txt", "images/x.tar", "x.tar"); !slices.Equal(got,
		[]string{"images/x.tar"}) {
		t.Errorf("the queue hears of %q, want images/x.tar alone", got)
	}
}

// state is all that the script sets, as text.
func (w *world) state() string {
	w.t.Helper()
	text, err := json.Marshal(map[string]any{
		"images": w.attributes("images"), "images-dlq": w.attributes("images-dlq"), "notifications": w.notifications(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func (w *world) checkQueues() {
	w.t.Helper()
	q, d := w.attributes("images"), w.attributes("images-dlq")
	var redrive struct {
		DeadLetterTargetArn string
		MaxReceiveCount     int
	}
	w.decode(q["RedrivePolicy"], &redrive)
	if redrive.DeadLetterTargetArn != d["QueueArn"] || redrive.MaxReceiveCount != 100 {
		w.t.Errorf("redrive policy %s, want 100 receives and %s", q["RedrivePolicy"], d["QueueArn"])
	}
	for name, want := range map[string]string{
		"VisibilityTimeout": "60", "ReceiveMessageWaitTimeSeconds": "20",
		"MessageRetentionPeriod": "345600",
	} {
		if q[name] != want {
			w.t.Errorf("%s is %q, want %q", name, q[name], want)
		}
	}
	if got := d["MessageRetentionPeriod"]; got != "1209600" {
		w.t.Errorf("the dead-letter queue keeps messages for %s s, want 1209600", got)
	}
	var policy struct {
		Statement []struct {
			Effect, Action, Resource string
			Principal                map[string]string
			Condition                map[string]map[string]string
		}
	}
	w.decode(q["Policy"], &policy)
	if len(policy.Statement) != 1 {
		w.t.Fatalf("policy %s: not one statement", q["Policy"])
	}
	s := policy.Statement[0]
	if s.Effect != "Allow" || s.Action != "sqs:SendMessage" || s.Resource != q["QueueArn"] ||
		s.Principal["Service"] != "s3.amazonaws.com" ||
		s.Condition["ArnEquals"]["aws:SourceArn"] != "arn:aws:s3:::container-images" ||
		s.Condition["StringEquals"]["aws:SourceAccount"] != emulator.Account {
		w.t.Errorf("policy %s: not what lets S3 send for this bucket, and nobody else", q["Policy"])
	}
}

// A later run with other options brings bucket and queue to what it says, and leaves
// configurations of others alone. The region is one that has to be named when the bucket
// is made.
func TestConverges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "eu-west-1")
	env := append(w.env(), "AWS_REGION=eu-west-1")
	got := succeed(t, env, setup, "--bucket", "container-images")
	if where := w.send(http.MethodGet, "/container-images?location", "", ""); !strings.Contains(where, "eu-west-1") ||
		!strings.Contains(got.out, "AWS_REGION=eu-west-1\n") {
		t.Errorf("the bucket is in %s, the settings are %s", where, got.out)
	}
	ours := strings.Index(w.notifications(), "<QueueConfiguration>")
	if ours < 0 {
		t.Fatal("no notification")
	}
	theirs := "<QueueConfiguration><Id>theirs</Id><Queue>" + w.attributes("images")["QueueArn"] +
		"</Queue><Event>s3:ObjectRemoved:*</Event></QueueConfiguration>"
	w.send(http.MethodPut, "/container-images?notification", "", w.notifications()[:ours]+theirs+
		w.notifications()[ours:])
	w.sqs("SetQueueAttributes", "images",
		`,"Attributes":{"Policy":"{\"Statement\":[{\"Sid\":\"Theirs\",\"Effect\":\"Deny\"}]}"}`)

	succeed(t, env, setup, "--bucket=container-images", "--suffix=", "--max-receives", "7", "--visibility=90",
		"--replace-policy")
	if n := w.notifications(); strings.Count(n, "<QueueConfiguration>") != 2 ||
		!strings.Contains(n, "<Id>theirs</Id>") {
		t.Errorf("notifications %s, want those of others and ours", n)
	}
	if got := w.announced("images/x.txt", "other/x.txt"); !slices.Equal(got, []string{"images/x.txt"}) {
		t.Errorf("without a suffix the queue hears of %q, want images/x.txt", got)
	}
	q := w.attributes("images")
	if q["VisibilityTimeout"] != "90" || !strings.Contains(q["RedrivePolicy"], `"maxReceiveCount":7}`) ||
		strings.Contains(q["Policy"], "Theirs") {
		t.Errorf("attributes %q: want visibility 90, 7 receives and our policy", q)
	}
}
