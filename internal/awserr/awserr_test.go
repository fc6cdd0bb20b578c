package awserr

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const queueURL = "https://sqs.test/1/images"

func noRetry(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

// realClient is the SDK's client for an endpoint.
func realClient(t *testing.T, url string) *sqs.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(url), HTTPClient: &http.Client{Transport: transport},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "x"}, nil
		}),
	})
}

// Errors as they come out of the SDK, from answers as SQS gives them.
func TestClassifyAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		query  string // header x-amzn-query-error
		body   string
		want   Class
	}{
		{
			"no queue", 400, "AWS.SimpleQueueService.NonExistentQueue;Sender",
			`{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no"}`, NotFound,
		},
		{
			"no queue, without the header", 400, "", `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no"}`,
			NotFound,
		},
		{"denied", 403, "", `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"no"}`, Denied},
		{"bad signature", 403, "", `{"__type":"com.amazon.coral.service#InvalidSignatureException"}`, Denied},
		{"expired token", 400, "", `{"__type":"com.amazon.coral.service#ExpiredTokenException"}`, Credentials},
		{
			"key denied", 400, "KMS.AccessDeniedException;Sender", `{"__type":"com.amazonaws.sqs#KmsAccessDenied"}`,
			Denied,
		},
		{"throttled", 400, "", `{"__type":"com.amazonaws.sqs#RequestThrottled"}`, Throttled},
		{"throttled, by status", 429, "", `{}`, Throttled},
		{"over the limit", 403, "OverLimit;Sender", `{"__type":"com.amazonaws.sqs#OverLimit"}`, Throttled},
		{"unavailable", 503, "", `<html>`, Server},
		{"internal", 500, "", `{"__type":"com.amazon.coral.service#InternalFailure"}`, Server},
		{"no JSON with status 200", 200, "", `<html>`, Other},
		{"our mistake", 400, "", `{"__type":"com.amazonaws.sqs#InvalidAddress"}`, Other},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				if tc.query != "" {
					w.Header().Set("X-Amzn-Query-Error", tc.query)
				}
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			}))
			defer srv.Close()
			_, err := realClient(t, srv.URL).
				ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(queueURL)}, noRetry)
			if got := Classify(err); err == nil || got != tc.want {
				t.Errorf("%v is %s, want %s", err, got, tc.want)
			}
		})
	}
}

// Errors of connections that bring no answer.
func TestClassifyConnections(t *testing.T) {
	block := make(chan struct{})
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		want  Class
	}{
		"cut before the answer": {cut, Network},
		"cut within it": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, Network},
		"no answer": {func(http.ResponseWriter, *http.Request) { <-block }, Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tc.serve)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := realClient(t, srv.URL).
				ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(queueURL)}, noRetry)
			if name == "no answer" {
				close(block)
			}
			srv.Close()
			if got := Classify(err); err == nil || got != tc.want {
				t.Errorf("%v is %s, want %s", err, got, tc.want)
			}
		})
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	for name, url := range map[string]string{
		"refused": "http://127.0.0.1:1", "no such name": "http://nowhere.invalid",
		"TLS": srv.URL,
	} {
		_, err := realClient(t, url).
			ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(queueURL)}, noRetry)
		if got := Classify(err); err == nil || got != Network {
			t.Errorf("%s: %v is %s, want %s", name, err, got, Network)
		}
	}
}

// cut closes the connection.
func cut(w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close() // it is the client's error that counts
	}
}

func TestClassifyValues(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Class
	}{
		{nil, Other},
		{fmt.Errorf("get identity: %w: %w", ErrNoCredentials, context.DeadlineExceeded), Credentials},
		{errors.New("x"), Other},
		{context.Canceled, Other},
		{&smithy.CanceledError{Err: context.Canceled}, Other},
		{&smithy.CanceledError{Err: context.DeadlineExceeded}, Timeout},
		{fmt.Errorf("w: %w", context.DeadlineExceeded), Timeout},
		{&net.DNSError{IsTimeout: true}, Timeout},
		{&net.DNSError{IsNotFound: true}, Network},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, Network},
		{tls.RecordHeaderError{}, Other},
		{fmt.Errorf("w: %w", syscall.ECONNRESET), Network},
		{fmt.Errorf("w: %w", syscall.EHOSTUNREACH), Network},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EPERM)}, Network}, // a firewall
		{syscall.ETIMEDOUT, Timeout},
		{fmt.Errorf("mount: %w", syscall.EPERM), Other},
		{syscall.ENOSYS, Other},
		{os.NewSyscallError("ioctl", syscall.EAGAIN), Other},
		{&fs.PathError{Op: "open", Path: "/dev/x", Err: syscall.ENOENT}, Other},
		{io.ErrUnexpectedEOF, Network},
		{&types.QueueDoesNotExist{ErrorCodeOverride: aws.String("AWS.SimpleQueueService.NonExistentQueue")}, NotFound},
		{&smithy.GenericAPIError{Code: "SomethingNew", Fault: smithy.FaultServer}, Server},
		{&smithy.GenericAPIError{Code: "SomethingNew", Fault: smithy.FaultClient}, Other},
		{&smithy.GenericAPIError{Code: "SlowDown"}, Throttled},
		{&smithy.GenericAPIError{Code: "NoSuchKey"}, NotFound},
		{&smithy.GenericAPIError{Code: "RequestExpired", Fault: smithy.FaultClient}, Credentials}, // a wrong clock
	} {
		if got := Classify(tc.err); got != tc.want {
			t.Errorf("%v is %s, want %s", tc.err, got, tc.want)
		}
	}
}

func TestRetryable(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{errors.New("x"), true},
		{io.EOF, true},
		{context.DeadlineExceeded, true},
		{&smithy.GenericAPIError{Code: "InternalError", Fault: smithy.FaultServer}, true},
		{&smithy.GenericAPIError{Code: "SomethingNew", Fault: smithy.FaultUnknown}, true},
		{&smithy.GenericAPIError{Code: "SomethingNew", Fault: smithy.FaultClient}, false},
		{&smithy.GenericAPIError{Code: "AccessDenied", Fault: smithy.FaultServer}, false},
		{&types.QueueDoesNotExist{}, false},
		{&types.RequestThrottled{}, true},
	} {
		if got := Retryable(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
}
