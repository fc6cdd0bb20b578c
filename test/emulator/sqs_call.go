package emulator

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"strings"
)

const (
	sqsTarget  = "AmazonSQS."
	sqsVersion = "2012-11-05"
	// maxRequest bounds a request body that is kept in memory, in bytes: ten messages of
	// 1 MiB, escaped.
	maxRequest = 64 << 20
)

// sqsRequest is what operations know of the call around them.
type sqsRequest struct {
	base  string // of queue URLs: scheme and host as the client wrote them
	fault Fault
}

// sqsOp is an operation: its input's type, and what it does.
type sqsOp struct {
	input func() any
	run   func(ctx context.Context, q *queues, req sqsRequest, in any) (any, error)
}

// operation adapts a method to the table of operations.
func operation[I, O any](f func(q *queues, ctx context.Context, req sqsRequest, in *I) (O, error)) sqsOp {
	return sqsOp{
		input: func() any { return new(I) },
		run: func(ctx context.Context, q *queues, req sqsRequest, in any) (any, error) {
			return f(q, ctx, req, in.(*I)) // input made it
		},
	}
}

var sqsOps = map[string]sqsOp{
	"CreateQueue":                  operation((*queues).createQueue),
	"GetQueueUrl":                  operation((*queues).getQueueURL),
	"ListQueues":                   operation((*queues).listQueues),
	"DeleteQueue":                  operation((*queues).deleteQueue),
	"PurgeQueue":                   operation((*queues).purgeQueue),
	"GetQueueAttributes":           operation((*queues).getQueueAttributes),
	"SetQueueAttributes":           operation((*queues).setQueueAttributes),
	"TagQueue":                     operation((*queues).tagQueue),
	"UntagQueue":                   operation((*queues).untagQueue),
	"ListQueueTags":                operation((*queues).listQueueTags),
	"SendMessage":                  operation((*queues).sendMessage),
	"SendMessageBatch":             operation((*queues).sendMessageBatch),
	"ReceiveMessage":               operation((*queues).receiveMessage),
	"DeleteMessage":                operation((*queues).deleteMessage),
	"DeleteMessageBatch":           operation((*queues).deleteMessageBatch),
	"ChangeMessageVisibility":      operation((*queues).changeMessageVisibility),
	"ChangeMessageVisibilityBatch": operation((*queues).changeMessageVisibilityBatch),
	"ListDeadLetterSourceQueues":   operation((*queues).listDeadLetterSourceQueues),
	"StartMessageMoveTask":         operation((*queues).startMessageMoveTask),
	"ListMessageMoveTasks":         operation((*queues).listMessageMoveTasks),
	"CancelMessageMoveTask":        operation((*queues).cancelMessageMoveTask),
}

// sqsCall is one request of either SQS protocol.
type sqsCall struct {
	queues *queues
	op     string
	in     any
	queue  string // its name; empty where the operation has none
	query  bool   // the query protocol: a form in, XML out
	err    *apiError
}

// isSQS tells a request for SQS from one for S3. S3 takes forms for nothing but its own
// sub-resources.
func isSQS(r *http.Request) bool {
	if strings.HasPrefix(r.Header.Get("X-Amz-Target"), sqsTarget) {
		return true
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	q := r.URL.Query()
	return r.Method == http.MethodPost && kind == "application/x-www-form-urlencoded" && !q.Has("delete") &&
		!q.Has("uploads") && !q.Has("uploadId")
}

// newSQSCall reads the request. What is wrong with it is kept, and said when the call is
// served.
func newSQSCall(q *queues, r *http.Request) *sqsCall {
	c := &sqsCall{queues: q}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		c.err = errSQSMalformed.with("body: %v", err)
		return c
	}
	var decode func(in any) error
	if op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), sqsTarget); ok {
		c.op = op
		decode = func(in any) error { return json.Unmarshal(body, in) }
	} else {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			c.err = errSQSMalformed.with("form: %v", err)
		}
		if r.URL.Path != "/" && form.Get("QueueUrl") == "" {
			form.Set("QueueUrl", r.URL.Path)
		}
		c.op, c.query = form.Get("Action"), true
		decode = func(in any) error { return decodeForm(form, in) }
	}
	c.decode(decode)
	return c
}

func (c *sqsCall) decode(decode func(in any) error) {
	op, known := sqsOps[c.op]
	if !known || c.err != nil {
		if c.err == nil {
			c.err = errSQSUnknown.with("The action %s is not valid for this endpoint.", c.op)
		}
		return
	}
	c.in = op.input()
	if err := decode(c.in); err != nil {
		c.err = errSQSMalformed.with("%v", err)
		return
	}
	in := reflect.ValueOf(c.in).Elem()
	for _, field := range []string{"QueueUrl", "QueueName"} {
		if f := in.FieldByName(field); f.IsValid() && f.Kind() == reflect.String && f.Len() > 0 {
			c.queue = queueName(f.String())
		}
	}
}

// queueName is the end of a queue's URL: neither scheme nor host matter, as with AWS's
// own endpoints.
func queueName(url string) string { return path.Base(url) }

func (c *sqsCall) name() (op, target string) { return c.op, c.queue }

func (c *sqsCall) serve(w http.ResponseWriter, r *http.Request, f Fault) {
	if c.err != nil {
		c.refuse(w, r, c.err)
		return
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	req := sqsRequest{base: scheme + "://" + r.Host, fault: f}
	out, err := sqsOps[c.op].run(r.Context(), c.queues, req, c.in)
	if err != nil {
		e, ok := err.(*apiError) //nolint:errorlint // operations return nothing else
		if !ok {
			e = errSQSInternal.with("%v", err)
		}
		c.refuse(w, r, e)
		return
	}
	if c.query {
		writeXML(w, http.StatusOK, encodeResult(c.op, out, w.Header().Get("X-Amz-Request-Id")))
		return
	}
	text, err := json.Marshal(out)
	if err != nil {
		c.refuse(w, r, errSQSInternal.with("%v", err))
		return
	}
	writeJSON(w, http.StatusOK, text)
}

func (c *sqsCall) refuse(w http.ResponseWriter, _ *http.Request, e *apiError) {
	id := w.Header().Get("X-Amz-Request-Id")
	fault := "Sender"
	if e.status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	code := e.code
	if prefixed[code] {
		code = "AWS.SimpleQueueService." + code
	}
	if legacy := renamed[e.code]; legacy != "" {
		code = legacy
	}
	if c.query {
		writeXML(w, e.status, encodeError(fault, code, e.message, id))
		return
	}
	// strings always marshal
	text, _ := json.Marshal(map[string]string{"__type": "com.amazonaws.sqs#" + e.code, "message": e.message})
	w.Header().Set("X-Amzn-Query-Error", code+";"+fault)
	writeJSON(w, e.status, text)
}

func writeJSON(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client went
}

func writeXML(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client went
}
