package plainbody

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// doer keeps the request.
type doer struct{ r *http.Request }

func (d *doer) Do(r *http.Request) (*http.Response, error) {
	d.r = r
	return &http.Response{Body: http.NoBody}, nil
}

// The wrapped client sees a body with Read and Close alone. The caller's request is left
// as it is, and a missing body stays missing.
func TestDo(t *testing.T) {
	body := io.NopCloser(strings.NewReader("text"))
	if _, ok := body.(io.WriterTo); !ok {
		t.Fatal("this body has no WriteTo: the test shows nothing")
	}
	for name, given := range map[string]io.ReadCloser{"a body": body, "NoBody": http.NoBody, "nil": nil} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body = given
		seen := &doer{}
		res, err := Client{seen}.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if r.Body != given {
			t.Errorf("%s: the caller's request was changed", name)
		}
		if given != body {
			if seen.r.Body != given {
				t.Errorf("%s: became %v", name, seen.r.Body)
			}
			continue
		}
		if _, ok := seen.r.Body.(io.WriterTo); ok {
			t.Errorf("%s: WriteTo is there", name)
		}
		if text, err := io.ReadAll(seen.r.Body); err != nil || string(text) != "text" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
