package origin

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// A range is answered with that range, after the time to the first byte.
func TestRange(t *testing.T) {
	url, stop, err := Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/b/"+Key(3<<20), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=1048000-2099999")
	began := time.Now()
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if took := time.Since(began); took < FirstByte {
		t.Errorf("answered after %s", took)
	}
	n, err := io.Copy(io.Discard, answer.Body)
	if got := answer.Header.Get("Content-Range"); err != nil || n != 1052000 ||
		got != "bytes 1048000-2099999/3145728" || answer.StatusCode != http.StatusPartialContent {
		t.Errorf("%d, %q, %d bytes, %v", answer.StatusCode, got, n, err)
	}
}
