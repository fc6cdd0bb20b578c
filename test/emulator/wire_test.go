package emulator_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"imagemanager.internal/test/emulator"
)

// post makes a request as an old or a foreign client would, without a server between.
func (w *testbed) do(method, target, body string, header map[string]string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, target, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	answer := httptest.NewRecorder()
	w.emu.ServeHTTP(answer, r)
	return answer
}

// form makes a request of the query protocol, which the AWS CLI spoke until 2023.
func (w *testbed) form(path string, values url.Values) (int, string) {
	w.t.Helper()
	answer := w.do(http.MethodPost, path, values.Encode(),
		map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})
	return answer.Code, answer.Body.String()
}

func TestQueryProtocol(t *testing.T) {
	w := emulated(t, emulator.Config{})
	for _, step := range []struct {
		name   string
		values url.Values
		status int
		want   []string // to be found in the answer, in this order
	}{
		{
			"create",
			url.Values{
				"Action": {"CreateQueue"}, "QueueName": {"q"}, "Attribute.1.Name": {"VisibilityTimeout"},
				"Attribute.1.Value": {"7"}, "Tag.1.Key": {"a"}, "Tag.1.Value": {"b"},
			},
			200,
			[]string{
				"<CreateQueueResponse xmlns=",
				"<CreateQueueResult><QueueUrl>http://example.com/000000000000/q</QueueUrl>", "<RequestId>",
			},
		},
		{
			"attributes",
			url.Values{
				"Action": {"GetQueueAttributes"}, "QueueUrl": {"http://x/000000000000/q"},
				"AttributeName.1": {"VisibilityTimeout"}, "AttributeName.2": {"QueueArn"},
			},
			200,
			[]string{"<Attribute><Name>QueueArn</Name><Value>arn:aws:sqs:us-east-1:000000000000:q</Value></Attribute>" +
				"<Attribute><Name>VisibilityTimeout</Name><Value>7</Value></Attribute>"},
		},
		{
			"tags",
			url.Values{"Action": {"ListQueueTags"}, "QueueUrl": {"http://x/000000000000/q"}},
			200,
			[]string{"<Tag><Key>a</Key><Value>b</Value></Tag>"},
		},
		{
			"send",
			url.Values{
				"Action": {"SendMessage"}, "QueueUrl": {"http://x/000000000000/q"}, "MessageBody": {"a <b>"},
				"DelaySeconds": {"0"}, "MessageAttribute.1.Name": {"n"},
				"MessageAttribute.1.Value.DataType": {"Binary"}, "MessageAttribute.1.Value.BinaryValue": {"AP8="},
			},
			200,
			[]string{"<MessageId>", "<MD5OfMessageBody>", "<MD5OfMessageAttributes>"},
		},
		{
			"receive",
			url.Values{
				"Action": {"ReceiveMessage"}, "QueueUrl": {"http://x/000000000000/q"},
				"AttributeName.1": {"ApproximateReceiveCount"}, "MessageAttributeName.1": {"All"},
			},
			200,
			[]string{
				"<Message><MessageId>",
				"<Body>a &lt;b&gt;</Body><Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>",
				"<MessageAttribute><Name>n</Name><Value>" +
					"<DataType>Binary</DataType><BinaryValue>AP8=</BinaryValue></Value></MessageAttribute>",
			},
		},
		{
			"a batch",
			url.Values{
				"Action": {"DeleteMessageBatch"}, "QueueUrl": {"http://x/000000000000/q"},
				"DeleteMessageBatchRequestEntry.1.Id":            {"x"},
				"DeleteMessageBatchRequestEntry.1.ReceiptHandle": {"nonsense"},
			},
			200,
			[]string{
				"<BatchResultErrorEntry><Id>x</Id><Code>ReceiptHandleIsInvalid</Code>",
				"<SenderFault>true</SenderFault>",
			},
		},
		{
			"a missing queue",
			url.Values{"Action": {"GetQueueUrl"}, "QueueName": {"missing"}},
			400,
			[]string{"<Type>Sender</Type><Code>AWS.SimpleQueueService.NonExistentQueue</Code>"},
		},
		{"an unknown action", url.Values{"Action": {"Nonsense"}}, 400, []string{"<Code>InvalidAction</Code>"}},
		{
			"a number that is none",
			url.Values{"Action": {"ReceiveMessage"}, "QueueUrl": {"q"}, "WaitTimeSeconds": {"x"}},
			400,
			[]string{"<Code>SerializationException</Code>"},
		},
	} {
		t.Run(step.name, func(t *testing.T) {
			status, body := w.in(t).form("/", step.values)
			rest := body
			for _, want := range step.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("no %q in %s", want, body)
				}
				rest = after
			}
			if status != step.status {
				t.Errorf("status %d, want %d: %s", status, step.status, body)
			}
		})
	}
	t.Run("the queue may be in the path", func(t *testing.T) {
		if status, body := w.in(t).form("/000000000000/q", url.Values{"Action": {"PurgeQueue"}}); status != 200 {
			t.Errorf("%d: %s", status, body)
		}
	})
}

func TestJSONErrors(t *testing.T) {
	w := emulated(t, emulator.Config{})
	call := func(op, body string) *httptest.ResponseRecorder {
		return w.do(http.MethodPost, "/", body,
			map[string]string{"X-Amz-Target": "AmazonSQS." + op, "Content-Type": "application/x-amz-json-1.0"})
	}
	for name, c := range map[string]struct{ op, body, kind, header string }{
		"missing": {
			"GetQueueUrl", `{"QueueName":"x"}`, "com.amazonaws.sqs#QueueDoesNotExist",
			"AWS.SimpleQueueService.NonExistentQueue;Sender",
		},
		"malformed": {
			"GetQueueUrl", `{"QueueName":`, "com.amazonaws.sqs#SerializationException",
			"SerializationException;Sender",
		},
		"unknown": {"Nonsense", `{}`, "com.amazonaws.sqs#InvalidAction", "InvalidAction;Sender"},
	} {
		t.Run(name, func(t *testing.T) {
			a := call(c.op, c.body)
			if a.Code != 400 || !strings.Contains(a.Body.String(), `"__type":"`+c.kind+`"`) || a.Header().
				Get("X-Amzn-Query-Error") != c.header {
				t.Errorf("%d %v %s", a.Code, a.Header(), a.Body)
			}
		})
	}
}

// Over TLS the SDK sends the checksum behind the body, in chunks; a body that cannot be
// rewound also only then.
func TestTrailer(t *testing.T) {
	w := serve(t, emulator.Config{}, httptest.NewTLSServer)
	b, text := w.newBucket(), content(300_000)
	for name, body := range map[string]io.Reader{
		"seekable": strings.NewReader(text),
		"streamed": io.MultiReader(strings.NewReader(text)),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			in := &s3.PutObjectInput{Bucket: &b, Key: &name, Body: body, ContentLength: aws.Int64(int64(len(text)))}
			_, err := w.s3.PutObject(t.Context(), in)
			w.check(err)
			got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: &name, ChecksumMode: "ENABLED"})
			if got != text || aws.ToString(out.ChecksumCRC32) == "" || out.ContentEncoding != nil {
				t.Errorf("%d bytes, checksum %q, encoding %q",
					len(got), aws.ToString(out.ChecksumCRC32), aws.ToString(out.ContentEncoding))
			}
		})
	}
	t.Run("an object in parts", func(t *testing.T) {
		w := w.in(t)
		w.multipart(b, "parts", s3.CreateMultipartUploadInput{ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c},
			content(bigPart), text)
		if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("parts")}); got != content(bigPart)+text {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestChunks(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b := w.newBucket()
	signature := ";chunk-signature=" + strings.Repeat("0", 64)
	signed := map[string]string{
		"X-Amz-Content-Sha256":         "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
		"X-Amz-Decoded-Content-Length": "8", "Content-Encoding": "aws-chunked,gzip",
	}
	trailed := map[string]string{
		"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
		"X-Amz-Trailer":        "x-amz-checksum-crc32",
	}
	for name, c := range map[string]struct {
		header map[string]string
		body   string
		status int
		want   string // in the object, or the error
	}{
		"signed": {signed, "5" + signature + "\r\nhello\r\n3" + signature + "\r\n wd\r\n0" +
			signature + "\r\n\r\n", 200, "hello wd"},
		"another length": {
			signed, "5" + signature + "\r\nhello\r\n0" + signature + "\r\n\r\n", 400,
			"IncompleteBody",
		},
		"no last chunk":         {trailed, "5\r\nhello\r\n", 400, "IncompleteBody"},
		"cut in a chunk":        {trailed, "5\r\nhel", 400, "IncompleteBody"},
		"nonsense":              {trailed, "xyz\r\n", 400, "IncompleteBody"},
		"a negative size":       {trailed, "-5\r\nhello\r\n0\r\n\r\n", 400, "IncompleteBody"},
		"a right trailer":       {trailed, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 200, "hello"},
		"a trailer without end": {trailed, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n", 200, "hello"},
		"a wrong trailer": {
			trailed, "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", 400,
			"BadDigest",
		},
		"a digest of the payload": {
			map[string]string{"X-Amz-Content-Sha256": strings.Repeat("0", 64)},
			"hello", 400,
			"XAmzContentSHA256Mismatch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			key := url.PathEscape(name)
			a := w.do(http.MethodPut, "/"+b+"/"+key, c.body, c.header)
			if a.Code != c.status {
				t.Fatalf("%d: %s", a.Code, a.Body)
			}
			got := a.Body.String()
			if c.status == 200 {
				read := w.do(http.MethodGet, "/"+b+"/"+key, "", nil)
				got = read.Body.String()
				if want := map[bool]string{true: "gzip"}[strings.Contains(c.header["Content-Encoding"],
					"gzip")]; read.Header().Get("Content-Encoding") != want {
					t.Errorf("encoding %q, want %q", read.Header().Get("Content-Encoding"), want)
				}
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// What is not emulated says so, and is not taken for something that is.
func TestNotEmulated(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b := w.newBucket()
	w.put(b, "k", "content")
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/" + b + "?policy", 501},
		{"PUT", "/" + b + "?lifecycle", 501},
		{"DELETE", "/" + b + "?cors", 501},
		{"PUT", "/" + b + "?tagging", 501},
		{"GET", "/" + b + "/k?acl", 501},
		{"POST", "/" + b + "/k?restore", 501},
		{"PATCH", "/" + b + "/k", 405},
		{"POST", "/", 405},
	} {
		t.Run(fmt.Sprint(c.method, " ", strings.TrimPrefix(c.target, "/"+b)), func(t *testing.T) {
			if a := w.do(c.method, c.target, "x", nil); a.Code != c.status {
				t.Errorf("%d, want %d: %s", a.Code, c.status, a.Body)
			}
		})
	}
	if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("k")}); got != "content" {
		t.Errorf("the object holds %q", got)
	}
}
