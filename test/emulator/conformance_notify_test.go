package emulator_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// notice is what a message of S3 says, as much of it as is checked.
type notice struct {
	Event, Bucket string // of a test event
	Records       []record
}

type record struct {
	EventVersion, EventSource, EventName, EventTime, AwsRegion string
	S3                                                         struct {
		ConfigurationID string `json:"configurationId"`
		Bucket          struct{ Name, Arn string }
		Object          struct {
			Key, ETag, VersionID, Sequencer string
			Size                            int64
		}
	}
}

// notified makes a queue that S3 may send to, and a bucket that notifies it of creations
// with the rules; the test event is taken out.
func (w *testbed) notified(rules ...types.FilterRule) (bucket, queue string) {
	w.t.Helper()
	bucket, queue = w.newBucket(), w.newQueue(nil)
	w.allow(bucket, queue)
	cfg := types.QueueConfiguration{
		Id: aws.String("images"), QueueArn: aws.String(w.attributes(queue)["QueueArn"]),
		Events: []types.Event{"s3:ObjectCreated:*"},
	}
	if len(rules) > 0 { // a filter without rules does not mean "all": moto refuses one
		cfg.Filter = filter(rules...)
	}
	w.check(w.configure(bucket, cfg))
	if n := w.notice(queue); n.Event != "s3:TestEvent" || n.Bucket != bucket {
		w.t.Fatalf("want a test event, got %+v", n)
	}
	return bucket, queue
}

// allow gives the queue the policy that AWS asks for.
func (w *testbed) allow(bucket, queue string) {
	w.t.Helper()
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
		"Resource":  w.attributes(queue)["QueueArn"],
		"Condition": map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": "arn:aws:s3:::" + bucket}},
	}}})
	w.check(err)
	_, err = w.sqs.SetQueueAttributes(w.t.Context(),
		&sqs.SetQueueAttributesInput{QueueUrl: &queue, Attributes: map[string]string{"Policy": string(policy)}})
	w.check(err)
}

func (w *testbed) configure(bucket string, queues ...types.QueueConfiguration) error {
	_, err := w.s3.PutBucketNotificationConfiguration(w.t.Context(), &s3.PutBucketNotificationConfigurationInput{
		Bucket: &bucket, NotificationConfiguration: &types.NotificationConfiguration{QueueConfigurations: queues},
	})
	return err
}

// notice receives one message and takes it out of the queue.
func (w *testbed) notice(queue string) notice {
	w.t.Helper()
	m := w.one(queue, 30)
	_, err := w.sqs.DeleteMessage(w.t.Context(),
		&sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle})
	w.check(err)
	var n notice
	w.check(json.Unmarshal([]byte(aws.ToString(m.Body)), &n))
	return n
}

// record receives a message that has one record.
func (w *testbed) record(queue string) record {
	w.t.Helper()
	n := w.notice(queue)
	if len(n.Records) != 1 {
		w.t.Fatalf("%d records: %+v", len(n.Records), n)
	}
	return n.Records[0]
}

func prefix(p string) types.FilterRule {
	return types.FilterRule{Name: types.FilterRuleNamePrefix, Value: &p}
}

func suffix(s string) types.FilterRule {
	return types.FilterRule{Name: types.FilterRuleNameSuffix, Value: &s}
}

func TestNotifications(t *testing.T) {
	checks{
		"a put": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			etag := w.put(b, "images/a.tar", "content").ETag
			r := w.record(q)
			if r.EventName != "ObjectCreated:Put" || r.EventSource != "aws:s3" ||
				!strings.HasPrefix(r.EventVersion, "2.") || !strings.HasSuffix(r.EventTime, "Z") || r.AwsRegion == "" {
				t.Errorf("%+v", r)
			}
			o := r.S3.Object
			if r.S3.Bucket.Name != b || r.S3.Bucket.Arn != "arn:aws:s3:::"+b || r.S3.ConfigurationID != "images" ||
				o.Key != "images/a.tar" || o.Size != 7 || o.ETag != strings.Trim(aws.ToString(etag), `"`) ||
				o.Sequencer == "" || o.VersionID != "" {
				t.Errorf("%+v", r.S3)
			}
		},
		"keys are form-encoded, slashes are not": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			for key, want := range map[string]string{
				"images/a b+c%2B.tar": "images/a+b%2Bc%252B.tar",
				"images/ä.tar":        "images/%C3%A4.tar",
			} {
				w.put(b, key, "x")
				got := w.record(q).S3.Object.Key
				if back, err := url.QueryUnescape(got); got != want || err != nil || back != key {
					t.Errorf("%q came as %q, want %q", key, got, want)
				}
			}
		},
		"the sequencer of a key grows": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			last := ""
			for range 5 {
				w.put(b, "k", "x")
				s := w.record(q).S3.Object.Sequencer
				if s <= last { // the shorter one is padded with zeros behind, so this is the documented order
					t.Errorf("%s after %s", s, last)
				}
				last = s
			}
		},
		"only what the filter lets through": func(t *testing.T, w *testbed) {
			b, q := w.notified(prefix("images/"), suffix(".tar"))
			for _, key := range []string{
				"images", "other/x.tar", "images/x.zip", "IMAGES/x.tar", "images%2Fx.tar",
				"other/images/x.tar",
			} {
				w.put(b, key, "x")
			}
			w.put(b, "images/last.tar", "x")
			if r := w.record(q); r.S3.Object.Key != "images/last.tar" {
				t.Errorf("%+v", r)
			}
		},
		"a prefix with a space filters the key itself": func(t *testing.T, w *testbed) {
			b, q := w.notified(prefix("my images/"))
			w.put(b, "my images/a.tar", "x")
			if r := w.record(q); r.S3.Object.Key != "my+images/a.tar" {
				t.Errorf("%+v", r)
			}
		},
		"a version id where there are versions": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			_, err := w.s3.PutBucketVersioning(t.Context(),
				&s3.PutBucketVersioningInput{
					Bucket:                  &b,
					VersioningConfiguration: &types.VersioningConfiguration{Status: "Enabled"},
				})
			w.check(err)
			id := w.put(b, "k", "x").VersionId
			if got := w.record(q).S3.Object.VersionID; got != aws.ToString(id) {
				t.Errorf("%q, want %q", got, aws.ToString(id))
			}
		},
		"a copy": func(t *testing.T, w *testbed) {
			b, q := w.notified(prefix("images/"))
			w.put(b, "source", "x")
			_, err := w.s3.CopyObject(t.Context(),
				&s3.CopyObjectInput{Bucket: &b, Key: aws.String("images/x"), CopySource: aws.String(b + "/source")})
			w.check(err)
			if r := w.record(q); r.EventName != "ObjectCreated:Copy" {
				t.Errorf("%+v", r)
			}
		},
		"an upload in parts is one event": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			out := w.multipart(b, "k", s3.CreateMultipartUploadInput{}, content(bigPart), "end")
			if r := w.record(q); r.EventName != "ObjectCreated:CompleteMultipartUpload" ||
				r.S3.Object.ETag != strings.Trim(aws.ToString(out.ETag), `"`) || r.S3.Object.Size != bigPart+3 {
				t.Errorf("%+v", r)
			}
			w.none(q)
		},
		"deleting is not a creation": func(t *testing.T, w *testbed) {
			b, q := w.notified()
			w.put(b, "k", "x")
			w.notice(q)
			_, err := w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("k")})
			w.check(err)
			w.put(b, "last", "x")
			if r := w.record(q); r.S3.Object.Key != "last" {
				t.Errorf("%+v", r)
			}
		},
		"deletes are notified to who asks for them": func(t *testing.T, w *testbed) {
			b, q := w.newBucket(), w.newQueue(nil)
			w.allow(b, q)
			w.check(w.configure(b, types.QueueConfiguration{
				QueueArn: aws.String(w.attributes(q)["QueueArn"]),
				Events:   []types.Event{"s3:ObjectRemoved:*"},
			}))
			w.notice(q)
			w.put(b, "k", "x")
			_, err := w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("k")})
			w.check(err)
			if r := w.record(q); r.EventName != "ObjectRemoved:Delete" || r.S3.Object.Key != "k" {
				t.Errorf("%+v", r)
			}
		},
		"the configuration comes back, and empty it is off": func(t *testing.T, w *testbed) {
			b, q := w.notified(prefix("images/"), suffix(".tar"))
			cfg, err := w.s3.GetBucketNotificationConfiguration(t.Context(),
				&s3.GetBucketNotificationConfigurationInput{Bucket: &b})
			w.check(err)
			if len(cfg.QueueConfigurations) != 1 {
				t.Fatalf("%+v", cfg)
			}
			c := cfg.QueueConfigurations[0]
			if aws.ToString(c.Id) != "images" || aws.ToString(c.QueueArn) != w.attributes(q)["QueueArn"] ||
				len(c.Events) != 1 || c.Filter == nil || c.Filter.Key == nil {
				t.Fatalf("%+v", c)
			}
			got := map[types.FilterRuleName]string{} // AWS answers these names whatever the case that was asked for
			for _, r := range c.Filter.Key.FilterRules {
				got[r.Name] = aws.ToString(r.Value)
			}
			if want := map[types.FilterRuleName]string{"Prefix": "images/", "Suffix": ".tar"}; !maps.Equal(got, want) {
				t.Errorf("rules %v, want %v", got, want)
			}
			w.check(w.configure(b))
			w.put(b, "images/x.tar", "x")
			w.none(q)
		},
		"what S3 refuses": func(t *testing.T, w *testbed) {
			b, q := w.newBucket(), w.newQueue(nil)
			w.allow(b, q)
			arn := w.attributes(q)["QueueArn"]
			created := []types.Event{"s3:ObjectCreated:*"}
			refused(t, w.configure(b,
				types.QueueConfiguration{QueueArn: aws.String(arn + "-missing"), Events: created}), "InvalidArgument")
			refused(t, w.configure(b, types.QueueConfiguration{QueueArn: &arn, Events: []types.Event{"s3:Nonsense"}}),
				"InvalidArgument", "MalformedXML")
			refused(t, w.configure(b, types.QueueConfiguration{QueueArn: &arn, Events: created},
				types.QueueConfiguration{QueueArn: &arn, Events: []types.Event{"s3:ObjectCreated:Put"}}),
				"InvalidArgument")
			fifo, err := w.sqs.CreateQueue(t.Context(),
				&sqs.CreateQueueInput{
					QueueName:  aws.String(unique("cim") + ".fifo"),
					Attributes: map[string]string{"FifoQueue": "true"},
				})
			w.check(err)
			//nolint:errcheck // clean-up
			defer w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: fifo.QueueUrl})
			refused(t, w.configure(b,
				types.QueueConfiguration{
					QueueArn: aws.String(w.attributes(aws.ToString(fifo.QueueUrl))["QueueArn"]),
					Events:   created,
				}), "InvalidArgument")
			w.check(w.configure(b, types.QueueConfiguration{
				QueueArn: &arn, Events: created,
				Filter: filter(prefix("a/")),
			},
				types.QueueConfiguration{QueueArn: &arn, Events: created, Filter: filter(prefix("b/"))}))
		},
	}.run(t)
}

func filter(rules ...types.FilterRule) *types.NotificationConfigurationFilter {
	return &types.NotificationConfigurationFilter{Key: &types.S3KeyFilter{FilterRules: rules}}
}
