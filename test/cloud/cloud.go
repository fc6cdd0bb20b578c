// Package cloud is the S3 and SQS that tests run the daemon against: an emulator of their
// own, or another endpoint.
package cloud

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/plainbody"
	"imagemanager.internal/test/emulator"
)

// Cloud is an endpoint and the clients for it.
type Cloud struct {
	URL      string
	S3       *s3.Client
	SQS      *sqs.Client
	Emulator *emulator.Server // nil at another endpoint

	srv *httptest.Server
}

// Connect takes the S3 and SQS at an endpoint.
func Connect(url string) *Cloud {
	creds := credentials.NewStaticCredentialsProvider("x", "x", "")
	client := plainbody.Client{Doer: awshttp.NewBuildableClient()}
	return &Cloud{
		URL: url,
		S3: s3.New(s3.Options{
			Region: "us-east-1", Credentials: creds, BaseEndpoint: aws.String(url),
			UsePathStyle: true, HTTPClient: client,
		}),
		SQS: sqs.New(sqs.Options{
			Region: "us-east-1", Credentials: creds, BaseEndpoint: aws.String(url),
			HTTPClient: client,
		}),
	}
}

// Emulate starts an emulator that keeps its files in dir. deleting, unless it is nil, is
// told the key that a message is about when a request to delete the message has come and
// before anything is done.
func Emulate(dir string, deleting func(key string)) (*Cloud, error) {
	emu, err := emulator.New(emulator.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	var handler http.Handler = emu
	if deleting != nil {
		handler = &watch{emu: emu, deleting: deleting, keys: map[string]string{}}
	}
	srv := httptest.NewServer(handler)
	c := Connect(srv.URL)
	c.Emulator, c.srv = emu, srv
	return c, nil
}

// Close ends an emulator.
func (c *Cloud) Close() error {
	if c.Emulator == nil {
		return nil
	}
	err := c.Emulator.Close() // before the server, which waits for the polls that this ends
	c.srv.Close()
	return err
}

// Bucket is a bucket, and the queue of the same name.
type Bucket struct {
	*Cloud
	Name  string
	Queue string // its URL
}

// Bucket makes both. The queue is told nothing yet.
func (c *Cloud) Bucket(ctx context.Context, name string) (*Bucket, error) {
	q, err := c.SQS.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	_, err = c.S3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(name)})
	return &Bucket{Cloud: c, Name: name, Queue: *q.QueueUrl}, err
}

// Notify makes S3 tell the queue of what is uploaded from now on, after a test event.
func (b *Bucket) Notify(ctx context.Context) error {
	a, err := b.attributes(ctx, "QueueArn")
	if err != nil {
		return err
	}
	return b.configure(ctx, s3types.QueueConfiguration{
		QueueArn: aws.String(a["QueueArn"]),
		Events:   []s3types.Event{"s3:ObjectCreated:*"},
	})
}

// Silence ends that: the queue is told nothing of what is uploaded until the next Notify.
// So an event is lost on any server. AWS may take a minute to follow, where an emulator
// does at once.
func (b *Bucket) Silence(ctx context.Context) error { return b.configure(ctx) }

func (b *Bucket) configure(ctx context.Context, queues ...s3types.QueueConfiguration) error {
	_, err := b.S3.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
		Bucket:                    aws.String(b.Name),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: queues},
	})
	return err
}

// Put uploads an object.
func (b *Bucket) Put(ctx context.Context, key string, body []byte) error {
	_, err := b.S3.PutObject(ctx,
		&s3.PutObjectInput{Bucket: aws.String(b.Name), Key: aws.String(key), Body: bytes.NewReader(body)})
	return err
}

// Send sends a message to the queue.
func (b *Bucket) Send(ctx context.Context, body string) error {
	_, err := b.SQS.SendMessage(ctx,
		&sqs.SendMessageInput{QueueUrl: aws.String(b.Queue), MessageBody: aws.String(body)})
	return err
}

// Purge empties the queue.
func (b *Bucket) Purge(ctx context.Context) error {
	_, err := b.SQS.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: aws.String(b.Queue)})
	return err
}

// IsDrained reports whether the queue holds no message, visible or in flight.
func (b *Bucket) IsDrained(ctx context.Context) (bool, error) {
	const visible, held = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
	a, err := b.attributes(ctx, visible, held)
	return err == nil && a[visible] == "0" && a[held] == "0", err
}

// Visible is how many messages of the queue may be received now.
func (b *Bucket) Visible(ctx context.Context) (int, error) {
	const visible = "ApproximateNumberOfMessages"
	a, err := b.attributes(ctx, visible)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(a[visible])
}

func (b *Bucket) attributes(ctx context.Context, names ...sqstypes.QueueAttributeName) (map[string]string, error) {
	out, err := b.SQS.GetQueueAttributes(ctx,
		&sqs.GetQueueAttributesInput{QueueUrl: aws.String(b.Queue), AttributeNames: names})
	return out.Attributes, err
}
