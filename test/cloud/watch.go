package cloud

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
)

// watch is the emulator, and notes which messages go out and which are to be deleted.
type watch struct {
	emu      http.Handler
	deleting func(key string)

	mu   sync.Mutex
	keys map[string]string // by receipt handle
}

func (w *watch) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	op, isSQS := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	switch {
	case isSQS && strings.HasPrefix(op, "DeleteMessage"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the daemon was killed
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.goes(body)
	case isSQS && op == "ReceiveMessage":
		answer := httptest.NewRecorder()
		w.emu.ServeHTTP(answer, r)
		w.comes(answer.Body.Bytes())
		for name, values := range answer.Header() {
			rw.Header()[name] = values
		}
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes()) // likewise
		return
	}
	w.emu.ServeHTTP(rw, r)
}

// comes notes which receipt handle is about which key.
func (w *watch) comes(answer []byte) {
	var out struct {
		Messages []struct{ Body, ReceiptHandle string }
	}
	if json.Unmarshal(answer, &out) != nil {
		return // an error's answer
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range out.Messages {
		var event struct {
			Records []struct {
				S3 struct{ Object struct{ Key string } }
			}
		}
		if json.Unmarshal([]byte(m.Body), &event) != nil {
			continue // a message that a test made up
		}
		for _, r := range event.Records {
			if key, err := url.QueryUnescape(r.S3.Object.Key); err == nil {
				w.keys[m.ReceiptHandle] = key
			}
		}
	}
}

// goes tells of the messages that a request is to delete.
func (w *watch) goes(request []byte) {
	type handle struct{ ReceiptHandle string }
	var in struct {
		handle
		Entries []handle
	}
	if json.Unmarshal(request, &in) != nil {
		return // the emulator refuses it
	}
	for _, h := range append(in.Entries, in.handle) {
		w.mu.Lock()
		key := w.keys[h.ReceiptHandle]
		w.mu.Unlock()
		if key != "" {
			w.deleting(key)
		}
	}
}
