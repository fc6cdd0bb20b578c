package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/test/cloud"
	"imagemanager.internal/test/emulator"
)

const (
	someBucket = "my-bucket"
	queueARN   = "arn:aws:sqs:us-east-1:000000000000:my-bucket"
	deadARN    = "arn:aws:sqs:us-east-1:000000000000:dead"
)

// ward is a cloud in which a fault is planted.
type ward struct {
	*cloud.Bucket
	t *testing.T
	c *Cloud
}

// newWard makes one in which everything is as setup.sh makes it, with one image.
func newWard(t *testing.T) *ward {
	t.Helper()
	e, err := cloud.Emulate(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	bucket, err := e.Bucket(t.Context(), someBucket)
	if err != nil {
		t.Fatal(err)
	}
	w := &ward{Bucket: bucket, t: t}
	dead, err := e.SQS.CreateQueue(t.Context(), &sqs.CreateQueueInput{
		QueueName: aws.String("dead"), Attributes: map[string]string{"MessageRetentionPeriod": "1209600"},
	})
	w.must(err)
	w.set("Policy", allowing("arn:aws:s3:::"+someBucket))
	w.set("RedrivePolicy", `{"deadLetterTargetArn":"`+deadARN+`","maxReceiveCount":"100"}`)
	w.notify(rule{prefix: "images/", suffix: ".tar"})
	w.must(w.Put(t.Context(), "images/a.tar", []byte("a")))
	w.c = &Cloud{
		Bucket: someBucket, Prefix: "images/", QueueURL: bucket.Queue, DeadLetterURL: *dead.QueueUrl,
		Region: "us-east-1", Visibility: time.Minute, MaxAttempts: 10,
	}
	w.connect(e.URL)
	return w
}

// connect gives the doctor clients of its own, which do not try a second time.
func (w *ward) connect(url string) {
	w.c.Credentials = credentials.NewStaticCredentialsProvider("AKIAX", "x", "")
	w.c.Clock = &Clock{}
	client := awshttp.NewBuildableClient()
	w.t.Cleanup(client.GetTransport().CloseIdleConnections)
	cfg := aws.Config{
		Region: w.c.Region, Credentials: w.c.Credentials, BaseEndpoint: aws.String(url), HTTPClient: client,
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
	cfg.APIOptions = append(cfg.APIOptions, w.c.Clock.Watch)
	w.c.S3 = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	w.c.SQS = sqs.NewFromConfig(cfg)
}

func (w *ward) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// set changes an attribute of the queue.
func (w *ward) set(name, value string) {
	w.t.Helper()
	w.setOf(w.Queue, name, value)
}

func (w *ward) setOf(queue, name, value string) {
	w.t.Helper()
	_, err := w.SQS.SetQueueAttributes(w.t.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: aws.String(queue), Attributes: map[string]string{name: value},
	})
	w.must(err)
}

// notify tells of uploads by these rules: to our queue, unless a rule names another.
func (w *ward) notify(rules ...rule) {
	w.t.Helper()
	cfg := &s3types.NotificationConfiguration{}
	for _, r := range rules {
		to, events := queueARN, r.events
		if r.to != "" {
			to = r.to
		}
		if events == nil {
			events = []s3types.Event{"s3:ObjectCreated:*"}
		}
		cfg.QueueConfigurations = append(cfg.QueueConfigurations, s3types.QueueConfiguration{
			QueueArn: aws.String(to), Events: events, Filter: &s3types.NotificationConfigurationFilter{
				Key: &s3types.S3KeyFilter{FilterRules: []s3types.FilterRule{
					{Name: "prefix", Value: aws.String(r.prefix)}, {Name: "suffix", Value: aws.String(r.suffix)},
				}},
			},
		})
	}
	_, err := w.S3.PutBucketNotificationConfiguration(w.t.Context(), &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(someBucket), NotificationConfiguration: cfg,
	})
	w.must(err)
}

// allowing is a queue's policy that lets S3 send for a bucket.
func allowing(bucket string) string {
	return fmt.Sprintf(`{"Statement":{"Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},
		"Action":"sqs:SendMessage","Resource":%q,"Condition":{"ArnEquals":{"aws:SourceArn":%q}}}}`, queueARN, bucket)
}

func TestCloudIsWell(t *testing.T) {
	w := newWard(t)
	found := w.c.Check(t.Context())
	for _, f := range found {
		if f.Result != OK {
			t.Errorf("%+v", f)
		}
	}
	for _, check := range append([]string{"credentials", "region"}, callChecks...) {
		find(t, found, check)
	}
}

// It changes nothing: no call but those that read.
func TestCloudIsOnlyRead(t *testing.T) {
	w := newWard(t)
	before := w.Emulator.Calls("")
	w.c.Check(t.Context())
	reads := 0
	for _, call := range []string{
		"GetQueueAttributes", "GetQueueUrl", "HeadBucket", "GetBucketNotificationConfiguration", "ListObjectsV2",
		"HeadObject", "GetObject",
	} {
		n := w.Emulator.Calls(call)
		if n == 0 {
			t.Errorf("no %s", call)
		}
		reads += n
	}
	if all := w.Emulator.Calls("") - before; all != reads {
		t.Errorf("%d calls, %d of them reads", all, reads)
	}
}

// faultsInCloud are planted one by one, each is named, and nothing else fails for it.
var faultsInCloud = []struct {
	name   string
	plant  func(*ward)
	check  string
	result Level
	text   string
	remedy string
}{
	{"no credentials", func(w *ward) {
		w.c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, awserr.ErrNoCredentials
		})
	}, "credentials", Fail, "there are none", "AWS_ACCESS_KEY_ID"},
	{"a role that is not given", func(w *ward) {
		w.c.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, fmt.Errorf("%w: %w", awserr.ErrNoCredentials,
				&smithy.GenericAPIError{Code: "AccessDenied"})
		})
	}, "credentials", Fail, "the answer for the role is AccessDenied", "correct the role"},
	{
		"wrong credentials", func(w *ward) {
			w.Emulator.Fault(emulator.Fault{Op: "GetQueueAttributes", Status: 403, Code: "InvalidClientTokenId"})
		},
		"queue", Fail, "InvalidClientTokenId", "correct the credentials",
	},
	{"no such queue", func(w *ward) { w.c.QueueURL += "x" }, "queue", Fail, "there is no queue", "SQS_QUEUE_URL"},
	{
		"queue not to be looked at", func(w *ward) {
			w.Emulator.Fault(emulator.Fault{Op: "GetQueueAttributes", Status: 403, Code: "AccessDenied"})
		},
		"queue", Warn, "access denied", "allow sqs:GetQueueAttributes",
	},
	{
		"FIFO queue", func(w *ward) { w.set("FifoQueue", "true") }, "queue", Fail, "FIFO", "standard queue",
	},
	{
		"short retention", func(w *ward) { w.set("MessageRetentionPeriod", "3600") },
		"queue-retention", Warn, "1h0m0s", "MessageRetentionPeriod=345600",
	},
	{
		"AWS's key", func(w *ward) { w.set("KmsMasterKeyId", "alias/aws/sqs") },
		"queue-key", Fail, "alias/aws/sqs", "a KMS key of your own",
	},
	{
		"a key of one's own", func(w *ward) { w.set("KmsMasterKeyId", "alias/mine") },
		"queue-key", Warn, "alias/mine", "kms:GenerateDataKey",
	},
	{"no redrive", func(w *ward) { w.set("RedrivePolicy", "") }, "redrive", Warn, "no redrive policy", "setup.sh"},
	{
		"redrive too early", func(w *ward) {
			w.set("RedrivePolicy", `{"deadLetterTargetArn":"`+deadARN+`","maxReceiveCount":3}`)
		},
		"redrive", Warn, "after 3 receives", "raise maxReceiveCount",
	},
	{
		"redrive to itself", func(w *ward) {
			w.set("RedrivePolicy", `{"deadLetterTargetArn":"`+queueARN+`","maxReceiveCount":100}`)
		},
		"redrive", Fail, "its own dead-letter queue", "name another queue",
	},
	{"redrive to nowhere", func(w *ward) {
		_, err := w.SQS.DeleteQueue(w.t.Context(), &sqs.DeleteQueueInput{QueueUrl: aws.String(w.c.DeadLetterURL)})
		w.must(err)
		w.c.DeadLetterURL = ""
	}, "redrive", Fail, deadARN + ", which does not exist", "make that queue"},
	{
		"no dead-letter queue", func(w *ward) { w.c.DeadLetterURL += "x" },
		"dead-letter-queue", Fail, "there is no queue", "SQS_DEAD_LETTER_URL",
	},
	{
		"dead-letter queue is the queue", func(w *ward) { w.c.DeadLetterURL = w.c.QueueURL },
		"dead-letter-queue", Fail, "the queue itself", "SQS_DEAD_LETTER_URL",
	},
	{
		"FIFO dead-letter queue", func(w *ward) { w.setOf(w.c.DeadLetterURL, "FifoQueue", "true") },
		"dead-letter-queue", Fail, "is a FIFO queue", "SQS_DEAD_LETTER_URL",
	},
	{
		"dead letters die early", func(w *ward) { w.setOf(w.c.DeadLetterURL, "MessageRetentionPeriod", "3600") },
		"dead-letter-queue", Warn, "1h0m0s only", "MessageRetentionPeriod=1209600",
	},
	{"no policy", func(w *ward) { w.set("Policy", "") }, "queue-policy", Fail, "has no policy", "aws:SourceArn"},
	{
		"policy for another bucket", func(w *ward) { w.set("Policy", allowing("arn:aws:s3:::other")) },
		"queue-policy", Fail, "not for arn:aws:s3:::my-bucket", "aws:SourceArn arn:aws:s3:::my-bucket",
	},
	{
		"policy for everybody", func(w *ward) {
			w.set("Policy", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:*","Resource":"*"}]}`)
		},
		"queue-policy", Warn, "everybody's buckets", "aws:SourceArn",
	},
	{"no such bucket", func(w *ward) { w.c.Bucket = "not-mine" }, "bucket", Fail, "no bucket not-mine", "S3_BUCKET"},
	{
		"somebody else's bucket", func(w *ward) {
			w.Emulator.Fault(emulator.Fault{Op: "HeadBucket", Status: 403, Code: "AccessDenied"})
		},
		"bucket", Warn, "access denied", "s3:ListBucket",
	},
	{
		"another region", func(w *ward) { w.c.Region = "eu-west-1" },
		"bucket", Fail, "is in us-east-1, and the queue in eu-west-1", "one region",
	},
	{"no notification", func(w *ward) { w.notify() }, "notification", Fail, "tells nothing", "setup.sh --bucket"},
	{
		"notification to another queue", func(w *ward) { w.notify(rule{to: deadARN}) },
		"notification", Fail, "tells nothing to " + queueARN, "setup.sh",
	},
	{
		"puts alone", func(w *ward) {
			w.notify(rule{prefix: "images/", events: []s3types.Event{"s3:ObjectCreated:Put"}})
		},
		"notification", Warn, "Post, Copy, CompleteMultipartUpload", "s3:ObjectCreated:*",
	},
	{
		"each kind for itself", func(w *ward) {
			w.notify(rule{prefix: "images/", events: []s3types.Event{"s3:ObjectCreated:Put", "s3:ObjectCreated:Post"}},
				rule{prefix: "images/", events: []s3types.Event{
					"s3:ObjectCreated:Copy", "s3:ObjectCreated:CompleteMultipartUpload",
				}})
		},
		"notification", OK, `all uploads under "images/"`, "",
	},
	{
		"another prefix", func(w *ward) { w.notify(rule{prefix: "pictures/"}) },
		"notification", Fail, `"pictures/" alone`, `S3_PREFIX to "pictures/"`,
	},
	{
		"a longer prefix", func(w *ward) { w.notify(rule{prefix: "images/debian/"}) },
		"notification", Warn, `"images/debian/" alone`, `prefix to "images/"`,
	},
	{
		"no prefix", func(w *ward) { w.notify(rule{}) },
		"notification", Warn, "outside of S3_PREFIX", `prefix to "images/"`,
	},
	{
		"a second prefix", func(w *ward) { w.notify(rule{prefix: "images/"}, rule{prefix: "else/"}) },
		"notification", Warn, "outside of S3_PREFIX", `prefix to "images/"`,
	},
	{
		"nothing to read", func(w *ward) { w.c.Prefix = "images/none/" },
		"sample-read", Warn, "no object", "upload an image",
	},
	{
		"objects not to be read", func(w *ward) {
			w.Emulator.Fault(emulator.Fault{Op: "GetObject", Status: 403, Code: "AccessDenied"})
		},
		"sample-read", Fail, "access denied", "allow s3:GetObject on arn:aws:s3:::my-bucket/images/*",
	},
	{"clock", func(w *ward) { w.shift(-3 * time.Minute) }, "clock", Warn, "ahead of AWS's", "timedatectl"},
	{
		"clock far off", func(w *ward) { w.shift(time.Hour) }, "clock", Fail, "behind AWS's: signatures are refused",
		"timedatectl",
	},
	{
		"nobody answers", func(w *ward) { w.connect("http://127.0.0.1:1") },
		"queue", Fail, "connection refused", "AWS_ENDPOINT_URL",
	},
}

// shift makes AWS's clock go ahead of ours.
func (w *ward) shift(ahead time.Duration) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		w.Emulator.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(srv.Close)
	w.connect(srv.URL)
}

func TestFaultsInCloud(t *testing.T) {
	for _, tc := range faultsInCloud {
		t.Run(tc.name, func(t *testing.T) {
			w := newWard(t)
			tc.plant(w)
			found := w.c.Check(t.Context())
			expect(t, found, tc.check, tc.result, tc.text, tc.remedy)
			allHaveRemedies(t, found)
			alone := tc.name != "nobody answers" && tc.name != "wrong credentials"
			for _, f := range found {
				if f.Result == Fail && f.Check != tc.check && alone {
					t.Errorf("%s fails as well: %+v", f.Check, f)
				}
				if strings.Contains(f.Text+f.Remedy, "operation error") || strings.Contains(f.Text, "RequestID") {
					t.Errorf("noise of the SDK: %+v", f)
				}
			}
		})
	}
}

// S3 refuses configurations that overlap; other implementations do not.
func TestOverlappingNotifications(t *testing.T) {
	c := &Cloud{Prefix: "images/"}
	all := []s3types.Event{"s3:ObjectCreated:*"}
	ours := rule{prefix: "images/", suffix: ".tar", events: all}
	for _, tc := range []struct {
		other rule
		want  Level
	}{
		{rule{events: all}, Warn},
		{rule{prefix: "images/debian/", events: all}, Warn},
		{rule{suffix: ".tar", events: all}, Warn},
		{rule{prefix: "logs/", events: all}, OK},
		{rule{suffix: ".txt", events: all}, OK},
	} {
		if f := c.judgeRules([]rule{ours}, []rule{tc.other}); f.Result != tc.want {
			t.Errorf("beside %+v: %+v", tc.other, f)
		}
	}
}

// What goes by way of EventBridge is not seen from here, and needs no policy for S3.
func TestDetour(t *testing.T) {
	c := &Cloud{Bucket: someBucket, Prefix: "images/"}
	f, direct := c.judgeNotifications(&s3.GetBucketNotificationConfigurationOutput{
		EventBridgeConfiguration: &s3types.EventBridgeConfiguration{},
	}, queueARN)
	if f.Result != Warn || f.Remedy == "" || direct {
		t.Errorf("%+v, direct %t", f, direct)
	}
	if f := c.policy(attributes{"QueueArn": queueARN}, false); f.Result != OK {
		t.Errorf("%+v", f)
	}
}

func TestClockUnseen(t *testing.T) {
	expect(t, []Finding{new(Clock).check()}, "clock", Warn, "not looked at", "mend the connection")
}

func TestQueuePolicies(t *testing.T) {
	const rest = `"Principal":{"Service":["s3.amazonaws.com"]},"Action":"SQS:SendMessage","Resource":"` + queueARN + `"`
	source := func(operator, arn string) string {
		return fmt.Sprintf(`"Condition":{%q:{"aws:SourceArn":[%q]}}`, operator, arn)
	}
	const ours = "arn:aws:s3:::my-bucket"
	for name, tc := range map[string]struct {
		policy string
		want   Level
	}{
		"list": {`[{"Effect":"Allow",` + rest + `,` + source("ArnLike", "arn:aws:s3:*:*:my-*") + `}]`, OK},
		"everybody": {`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*",` + source("StringLike",
			ours) + `}`, OK},
		"not equal": {`{"Effect":"Allow",` + rest + `,` + source("ArnNotEquals", ours) + `}`, Fail},
		"other":     {`{"Effect":"Allow",` + rest + `,` + source("ArnEquals", "arn:aws:s3:::other") + `}`, Fail},
		"our role's": {
			`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:root"},"Action":"*","Resource":"*"}`,
			Fail,
		},
		"denied": {
			`[{"Effect":"Allow",` + rest + `,` + source("ArnEquals", ours) + `},{"Effect":"Deny",` + rest + `}]`,
			Fail,
		},
		"plain HTTP denied": {`[{"Effect":"Allow",` + rest + `,` + source("ArnEquals",
			ours) + `},{"Effect":"Deny",` + rest +
			`,"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]`, OK},
		"no list": {`"none"`, Warn},
	} {
		c := &Cloud{Bucket: someBucket}
		f := c.policy(attributes{"QueueArn": queueARN, "Policy": `{"Statement":` + tc.policy + `}`}, true)
		if f.Result != tc.want {
			t.Errorf("%s: %+v", name, f)
		}
	}
	china := "arn:aws-cn:sqs:cn-north-1:1:q"
	if arn := (&Cloud{Bucket: "b"}).bucketARN(china); arn != "arn:aws-cn:s3:::b" {
		t.Error(arn)
	}
}
