package emulator_test

import (
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestRanges(t *testing.T) {
	w := newTestbed(t)
	b, key := w.newBucket(), "ranged"
	text := content(1000)
	w.put(b, key, text)
	for header, want := range map[string]struct{ content, rangeHeader string }{
		"bytes=0-0":      {text[:1], "bytes 0-0/1000"},
		"bytes=10-19":    {text[10:20], "bytes 10-19/1000"},
		"bytes=990-":     {text[990:], "bytes 990-999/1000"},
		"bytes=-5":       {text[995:], "bytes 995-999/1000"},
		"bytes=-5000":    {text, "bytes 0-999/1000"},
		"bytes=990-5000": {text[990:], "bytes 990-999/1000"},
		"bytes=0-":       {text, "bytes 0-999/1000"},
	} {
		t.Run(header, func(t *testing.T) {
			got, out := w.in(t).get(&s3.GetObjectInput{Bucket: &b, Key: &key, Range: &header})
			if got != want.content || aws.ToString(out.ContentRange) != want.rangeHeader ||
				aws.ToInt64(out.ContentLength) != int64(len(want.content)) {
				t.Errorf("%d bytes, %s", len(got), aws.ToString(out.ContentRange))
			}
		})
	}
	for _, header := range []string{"bytes=1000-", "bytes=2000-3000", "bytes=-0"} {
		t.Run(header, func(t *testing.T) {
			_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &key, Range: &header})
			refused(t, err, "InvalidRange")
			if status(err) != http.StatusRequestedRangeNotSatisfiable {
				t.Errorf("status %d", status(err))
			}
		})
	}
	t.Run("the SDK sees a range of a head", func(t *testing.T) {
		out, err := w.s3.HeadObject(t.Context(),
			&s3.HeadObjectInput{Bucket: &b, Key: &key, Range: aws.String("bytes=0-9")})
		w.in(t).check(err)
		if aws.ToInt64(out.ContentLength) != 10 || aws.ToString(out.ContentRange) != "bytes 0-9/1000" {
			t.Errorf("%d, %s", aws.ToInt64(out.ContentLength), aws.ToString(out.ContentRange))
		}
	})
}

func TestConditions(t *testing.T) {
	w := newTestbed(t)
	b, key := w.newBucket(), "conditional"
	etag := w.put(b, key, "v1").ETag
	other := aws.String(`"00000000000000000000000000000000"`)
	past, future := aws.Time(time.Now().Add(-time.Hour)), aws.Time(time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		in   s3.GetObjectInput
		want int
	}{
		"If-Match, the same": {s3.GetObjectInput{IfMatch: etag}, 200},
		"If-Match, without quotes": {
			s3.GetObjectInput{IfMatch: aws.String(strings.Trim(aws.ToString(etag), `"`))},
			200,
		},
		"If-Match, another":          {s3.GetObjectInput{IfMatch: other}, 412},
		"If-Match, another, ranged":  {s3.GetObjectInput{IfMatch: other, Range: aws.String("bytes=0-0")}, 412},
		"If-None-Match, the same":    {s3.GetObjectInput{IfNoneMatch: etag}, 304},
		"If-None-Match, another":     {s3.GetObjectInput{IfNoneMatch: other}, 200},
		"If-Modified-Since, past":    {s3.GetObjectInput{IfModifiedSince: past}, 200},
		"If-Unmodified-Since, past":  {s3.GetObjectInput{IfUnmodifiedSince: past}, 412},
		"If-Unmodified-Since, later": {s3.GetObjectInput{IfUnmodifiedSince: future}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Bucket, c.in.Key = &b, &key
			out, err := w.s3.GetObject(t.Context(), &c.in)
			got := 200
			if err != nil {
				got = status(err)
			} else {
				out.Body.Close()
			}
			if got != c.want {
				t.Errorf("status %d, want %d: %v", got, c.want, err)
			}
		})
	}
	t.Run("writes", func(t *testing.T) {
		put := func(in s3.PutObjectInput) error {
			in.Bucket, in.Body = &b, strings.NewReader("v2")
			_, err := w.s3.PutObject(t.Context(), &in)
			return err
		}
		refused(t, put(s3.PutObjectInput{Key: &key, IfNoneMatch: aws.String("*")}), "PreconditionFailed")
		refused(t, put(s3.PutObjectInput{Key: &key, IfMatch: other}), "PreconditionFailed")
		if got, _ := w.in(t).get(&s3.GetObjectInput{Bucket: &b, Key: &key}); got != "v1" {
			t.Errorf("a refused write left %q", got)
		}
		w.in(t).check(put(s3.PutObjectInput{Key: &key, IfMatch: etag}))
		w.in(t).check(put(s3.PutObjectInput{Key: aws.String("new"), IfNoneMatch: aws.String("*")}))
	})
	t.Run("a reader pinned by ETag sees an overwrite", func(t *testing.T) {
		k := "pinned"
		before := w.in(t).put(b, k, "old")
		w.in(t).put(b, k, "new")
		_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: &k, IfMatch: before.ETag})
		refused(t, err, "PreconditionFailed")
	})
}

func b64(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

func TestChecksums(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	text := content(50_000)
	sha := sha256.Sum256([]byte(text))
	nvme := crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5))
	io.WriteString(nvme, text) //nolint:errcheck // a hash takes everything
	crc := crc32.NewIEEE()
	io.WriteString(crc, text) //nolint:errcheck // a hash takes everything
	values := map[types.ChecksumAlgorithm]string{
		"SHA256": b64(sha[:]), "CRC64NVME": b64(nvme.Sum(nil)),
		"CRC32": b64(crc.Sum(nil)),
	}
	get := func(o *s3.HeadObjectOutput) map[types.ChecksumAlgorithm]string {
		return map[types.ChecksumAlgorithm]string{
			"SHA256":    aws.ToString(o.ChecksumSHA256),
			"CRC64NVME": aws.ToString(o.ChecksumCRC64NVME), "CRC32": aws.ToString(o.ChecksumCRC32),
		}
	}
	for alg, want := range values {
		t.Run(string(alg)+" is kept and returned", func(t *testing.T) {
			_, err := w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{
					Bucket: &b, Key: aws.String(string(alg)), Body: strings.NewReader(text),
					ChecksumAlgorithm: alg,
				})
			w.in(t).check(err)
			head, err := w.s3.HeadObject(t.Context(),
				&s3.HeadObjectInput{Bucket: &b, Key: aws.String(string(alg)), ChecksumMode: "ENABLED"})
			w.in(t).check(err)
			if got := get(head)[alg]; got != want || head.ChecksumType != types.ChecksumTypeFullObject {
				t.Errorf("%s %q, want %q", head.ChecksumType, got, want)
			}
			quiet, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String(string(alg))})
			w.in(t).check(err)
			if got := get(quiet)[alg]; got != "" {
				t.Errorf("unasked: %q", got)
			}
			if got, _ := w.in(t).get(&s3.GetObjectInput{
				Bucket: &b, Key: aws.String(string(alg)),
				ChecksumMode: "ENABLED",
			}); got != text {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
	t.Run("the SDK at its defaults has one", func(t *testing.T) {
		out := w.in(t).put(b, "default", text)
		if aws.ToString(out.ChecksumCRC32) != values["CRC32"] {
			t.Errorf("got %+v", out)
		}
	})
	t.Run("a wrong one stores nothing", func(t *testing.T) {
		_, err := w.s3.PutObject(t.Context(),
			&s3.PutObjectInput{
				Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"),
				ChecksumSHA256: aws.String(values["SHA256"]),
			})
		refused(t, err, "BadDigest")
		_, err = w.s3.PutObject(t.Context(),
			&s3.PutObjectInput{
				Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"),
				ContentMD5: aws.String("1B2M2Y8AsgTpgAmY7PhCfg=="),
			})
		refused(t, err, "BadDigest")
		_, err = w.s3.PutObject(t.Context(),
			&s3.PutObjectInput{
				Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"),
				ContentMD5: aws.String("short"),
			})
		refused(t, err, "InvalidDigest")
		_, err = w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("wrong")})
		failed[*types.NotFound](t, err)
	})
	t.Run("none on a range", func(t *testing.T) {
		w.in(t).put(b, "ranged", text)
		_, out := w.in(t).get(&s3.GetObjectInput{
			Bucket: &b, Key: aws.String("ranged"), ChecksumMode: "ENABLED",
			Range: aws.String("bytes=1-100"),
		})
		if out.ChecksumCRC32 != nil || out.ChecksumCRC64NVME != nil {
			t.Errorf("got %v, %v", out.ChecksumCRC32, out.ChecksumCRC64NVME)
		}
	})
}
