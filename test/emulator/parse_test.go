package emulator

import (
	"bytes"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzChunks: whatever comes, the reader ends, and an end without error has a last chunk.
func FuzzChunks(f *testing.F) {
	for _, seed := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "5;chunk-signature=0\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", "0\r\n",
		"ffffffffffffffff\r\n", "-1\r\n", "5\r\nhelloX\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := io.ReadAll(newChunkReader(bytes.NewReader(raw)))
		if len(got) > len(raw) {
			t.Errorf("%d bytes of %d", len(got), len(raw))
		}
		if err == nil && !bytes.Contains(raw, []byte("0")) {
			t.Errorf("no last chunk, and no error: %q", raw)
		}
	})
}

// FuzzForm: no form makes the decoder panic or run without end, and what it takes, it can
// write.
func FuzzForm(f *testing.F) {
	f.Add("Action=SendMessageBatch&SendMessageBatchRequestEntry.1.Id=a&" +
		"SendMessageBatchRequestEntry.1.MessageAttribute.1.Name=n&" +
		"SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringValue=v")
	f.Add("Attribute.1.Name=a&Attribute.1.Value=b&Attribute.3.Name=c")
	f.Fuzz(func(t *testing.T, text string) {
		form, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		for op, o := range sqsOps {
			in := o.input()
			if decodeForm(form, in) == nil && len(encodeResult(op, in, "id")) == 0 {
				t.Error("nothing written")
			}
		}
	})
}

// FuzzRange: a range is within the object.
func FuzzRange(f *testing.F) {
	for _, seed := range []string{
		"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=-0", "bytes=9223372036854775807-",
		"bytes=0-9223372036854775807", "bytes=1-2,3-4",
	} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		size = max(0, size)
		from, n, ok := parseRange(header, size)
		if ok && n > 0 && (from < 0 || from+n > size || from+n < from) {
			t.Errorf("%q of %d: %d bytes from %d", header, size, n, from)
		}
	})
}

// Every page of a listing, put together, is what a plain loop over the keys finds.
func FuzzWalk(f *testing.F) {
	f.Add("a,b/1,b/2,b/c/3,d", "b/", "/", 2)
	f.Add("a//b,a/b,a", "", "/", 1)
	f.Fuzz(func(t *testing.T, list, prefix, delimiter string, limit int) {
		keys := slices.Compact(slices.Sorted(slices.Values(strings.Split(list, ","))))
		p := page{prefix: prefix, delimiter: delimiter, limit: 1 + (limit&0xff)%7}
		var want, got []string
		for _, k := range keys {
			if !strings.HasPrefix(k, prefix) {
				continue
			}
			if g := p.group(k); g != "" {
				k = g
			}
			if k != "" && !slices.Contains(want, k) { // a key is not empty
				want = append(want, k)
			}
		}
		for range len(keys) + 1 {
			n := 0
			last, more := p.walk(keys, func(k string) bool { got, n = append(got, k), n+1; return true },
				func(g string) { got, n = append(got, g), n+1 })
			if n > p.limit {
				t.Fatalf("%d entries on a page of %d", n, p.limit)
			}
			if !more {
				break
			}
			p.after = last
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
