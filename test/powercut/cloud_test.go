package powercut

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/test/emulator"
)

// bucket is part of every image's identity: the same in all states.
const bucket = "powercut"

// cloud is an S3 and SQS that loses nothing when the host's power fails.
type cloud struct {
	t       *testing.T
	emu     *emulator.Server
	url     string
	queue   string
	s3      *s3.Client
	sqs     *sqs.Client
	deleted func(key string) // called before a message about the key is deleted

	mu   sync.Mutex
	keys map[string]string // by receipt handle
}

func newCloud(t *testing.T, deleted func(key string)) *cloud {
	t.Helper()
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	check(t, err)
	c := &cloud{t: t, emu: emu, deleted: deleted, keys: map[string]string{}}
	srv := httptest.NewServer(c)
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	c.url = srv.URL
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion("us-east-1"), config.WithHTTPClient(awshttp.NewBuildableClient()),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("x", "x", "")), config.WithBaseEndpoint(c.url))
	check(t, err)
	c.s3 = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	c.sqs = sqs.NewFromConfig(cfg)
	q, err := c.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(bucket)})
	check(t, err)
	c.queue = *q.QueueUrl
	_, err = c.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)})
	check(t, err)
	return c
}

// notify makes S3 tell the queue of what is uploaded from now on.
func (c *cloud) notify() {
	c.t.Helper()
	a, err := c.sqs.GetQueueAttributes(c.t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(c.queue), AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"},
	})
	check(c.t, err)
	_, err = c.s3.PutBucketNotificationConfiguration(c.t.Context(), &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(bucket),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: []s3types.QueueConfiguration{{
			QueueArn: aws.String(a.Attributes["QueueArn"]), Events: []s3types.Event{"s3:ObjectCreated:*"},
		}}},
	})
	check(c.t, err)
}

func (c *cloud) put(images ...image) {
	c.t.Helper()
	for _, img := range images {
		_, err := c.s3.PutObject(c.t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(img.key), Body: bytes.NewReader(img.archive)})
		check(c.t, err)
	}
}

// as is the cloud as it stood when the power failed: every object is there, and a message about those whose message was not deleted.
func (c *cloud) as(deleted []string) {
	c.t.Helper()
	for _, img := range images() {
		if slices.Contains(deleted, img.key) {
			c.put(img)
		}
	}
	c.notify()
	for _, img := range images() {
		if !slices.Contains(deleted, img.key) {
			c.put(img)
		}
	}
}

func (c *cloud) isDrained() bool {
	c.t.Helper()
	a, err := c.sqs.GetQueueAttributes(c.t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl:       aws.String(c.queue),
		AttributeNames: []sqstypes.QueueAttributeName{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"},
	})
	check(c.t, err)
	return a.Attributes["ApproximateNumberOfMessages"] == "0" && a.Attributes["ApproximateNumberOfMessagesNotVisible"] == "0"
}

// ServeHTTP is the emulator, and watches which messages go out and which are to be deleted. That is noted when the request comes and
// before anything is done: what was durable when the daemon sent it precedes the mark, so every state behind the mark must have it.
func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op, isSQS := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	switch {
	case isSQS && strings.HasPrefix(op, "DeleteMessage"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			c.t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.note(body)
	case isSQS && op == "ReceiveMessage":
		answer := httptest.NewRecorder()
		c.emu.ServeHTTP(answer, r)
		c.learn(answer.Body.Bytes())
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		if _, err := w.Write(answer.Body.Bytes()); err != nil {
			c.t.Logf("a poll that nobody waited for: %v", err)
		}
		return
	}
	c.emu.ServeHTTP(w, r)
}

// learn notes which receipt handle is about which key.
func (c *cloud) learn(answer []byte) {
	var out struct {
		Messages []struct{ Body, ReceiptHandle string }
	}
	if json.Unmarshal(answer, &out) != nil {
		return // an error's answer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range out.Messages {
		var event struct {
			Records []struct {
				S3 struct{ Object struct{ Key string } }
			}
		}
		if err := json.Unmarshal([]byte(m.Body), &event); err != nil {
			c.t.Error(err)
		}
		for _, r := range event.Records {
			c.keys[m.ReceiptHandle] = r.S3.Object.Key
		}
	}
}

// note calls deleted for the messages that a request is about.
func (c *cloud) note(request []byte) {
	type handle struct{ ReceiptHandle string }
	var in struct {
		handle
		Entries []handle
	}
	if err := json.Unmarshal(request, &in); err != nil {
		c.t.Error(err)
	}
	for _, h := range append(in.Entries, in.handle) {
		c.mu.Lock()
		key := c.keys[h.ReceiptHandle]
		c.mu.Unlock()
		if key != "" {
			c.deleted(key)
		}
	}
}
