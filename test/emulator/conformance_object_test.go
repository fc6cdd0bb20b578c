package emulator_test

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestBuckets(t *testing.T) {
	checks{
		"made, found, listed, deleted": func(t *testing.T, w *world) {
			b := unique("cim")
			_, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &b})
			w.check(err)
			head, err := w.s3.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &b})
			w.check(err)
			if aws.ToString(head.BucketRegion) != "us-east-1" {
				t.Errorf("region %q", aws.ToString(head.BucketRegion))
			}
			list, err := w.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{})
			w.check(err)
			if !slices.ContainsFunc(list.Buckets, func(x types.Bucket) bool { return *x.Name == b && !x.CreationDate.IsZero() }) {
				t.Errorf("%s is not in the list", b)
			}
			_, err = w.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &b})
			w.check(err)
			_, err = w.s3.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &b})
			failed[*types.NotFound](t, err)
		},
		"made again in us-east-1 is no error": func(t *testing.T, w *world) {
			b := w.newBucket()
			_, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &b})
			w.check(err)
		},
		"one with objects is not deleted": func(t *testing.T, w *world) {
			b := w.newBucket()
			w.put(b, "x", "x")
			_, err := w.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &b})
			refused(t, err, "BucketNotEmpty")
		},
		"a bad name is refused": func(t *testing.T, w *world) {
			_, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("Not_A_Bucket")})
			refused(t, err, "InvalidBucketName")
		},
		"a missing one is a typed error": func(t *testing.T, w *world) {
			b := unique("cim")
			_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("x")})
			refused(t, err, "NoSuchBucket")
			_, err = w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b})
			failed[*types.NoSuchBucket](t, err)
			_, err = w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("x"), Body: strings.NewReader("x")})
			refused(t, err, "NoSuchBucket")
		},
		"location": func(t *testing.T, w *world) {
			b := w.newBucket()
			out, err := w.s3.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: &b})
			w.check(err)
			if out.LocationConstraint != "" {
				t.Errorf("got %q, want none for us-east-1", out.LocationConstraint)
			}
		},
	}.run(t)
}

func TestObjects(t *testing.T) {
	w := newWorld(t)
	b := w.newBucket()
	inBucket := func(name string, check func(t *testing.T, w *world)) {
		t.Run(name, func(t *testing.T) { check(t, w.in(t)) })
	}
	inBucket("content, ETag, size and metadata come back", func(t *testing.T, w *world) {
		text := content(100_000)
		_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b, Key: aws.String("meta"), Body: strings.NewReader(text), ContentType: aws.String("application/x-tar"),
			CacheControl: aws.String("no-cache"), ContentEncoding: aws.String("identity"), Metadata: map[string]string{"digest": "abc"},
		})
		w.check(err)
		got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("meta")})
		sum := md5.Sum([]byte(text)) //nolint:gosec // what ETags are made of
		if got != text || *out.ETag != fmt.Sprintf(`"%x"`, sum) || *out.ContentLength != 100_000 || *out.AcceptRanges != "bytes" {
			t.Errorf("%d bytes, %+v", len(got), out)
		}
		if *out.ContentType != "application/x-tar" || *out.CacheControl != "no-cache" || *out.ContentEncoding != "identity" || out.Metadata["digest"] != "abc" {
			t.Errorf("headers %+v", out)
		}
		head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("meta")})
		w.check(err)
		if *head.ETag != *out.ETag || *head.ContentLength != 100_000 || head.Metadata["digest"] != "abc" || !head.LastModified.Equal(*out.LastModified) {
			t.Errorf("head %+v", head)
		}
	})
	inBucket("odd keys", func(t *testing.T, w *world) {
		for _, key := range []string{"a b+c%2Bd.tar", "äöü/日本.tar", "..", "a//b", "/lead", "trail/", "q?x=1&y#z", `quote"'`, "per%cent", strings.Repeat("k", 1024)} {
			w.put(b, key, "at "+key)
			if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: &key}); got != "at "+key {
				t.Errorf("%q holds %q", key, got)
			}
		}
		_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String(strings.Repeat("k", 1025)), Body: strings.NewReader("x")})
		refused(t, err, "KeyTooLongError")
	})
	inBucket("an empty object", func(t *testing.T, w *world) {
		w.put(b, "empty", "")
		if got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("empty")}); got != "" || *out.ETag != `"d41d8cd98f00b204e9800998ecf8427e"` {
			t.Errorf("%q, %s", got, *out.ETag)
		}
	})
	inBucket("a missing one is a typed error", func(t *testing.T, w *world) {
		_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("missing")})
		failed[*types.NoSuchKey](t, err)
		_, err = w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("missing")})
		failed[*types.NotFound](t, err)
		if status(err) != http.StatusNotFound {
			t.Errorf("status %d", status(err))
		}
	})
	inBucket("overwritten, deleted, and deleted again", func(t *testing.T, w *world) {
		w.put(b, "twice", "one")
		w.put(b, "twice", "two")
		if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("twice")}); got != "two" {
			t.Errorf("got %q", got)
		}
		for range 2 {
			_, err := w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("twice")})
			w.check(err)
		}
		_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("twice")})
		failed[*types.NoSuchKey](t, err)
	})
	inBucket("several deleted at once", func(t *testing.T, w *world) {
		w.put(b, "del/1", "x")
		w.put(b, "del/<2>", "x")
		out, err := w.s3.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
			{Key: aws.String("del/1")}, {Key: aws.String("del/<2>")}, {Key: aws.String("del/missing")},
		}}})
		w.check(err)
		list, err := w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, Prefix: aws.String("del/")})
		w.check(err)
		if len(out.Deleted) != 3 || len(out.Errors) != 0 || len(list.Contents) != 0 {
			t.Errorf("%d deleted, %d errors, %d left", len(out.Deleted), len(out.Errors), len(list.Contents))
		}
	})
	inBucket("copied, with its metadata or others", func(t *testing.T, w *world) {
		key := "copy source+%.tar"
		_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: &key, Body: strings.NewReader("copied"), Metadata: map[string]string{"a": "1"}})
		w.check(err)
		source := b + "/copy%20source%2B%25.tar"
		_, err = w.s3.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &b, Key: aws.String("copy1"), CopySource: &source})
		w.check(err)
		_, err = w.s3.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: &b, Key: aws.String("copy2"), CopySource: &source, MetadataDirective: "REPLACE", Metadata: map[string]string{"b": "2"}})
		w.check(err)
		_, err = w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: &key})
		w.check(err)
		one, out1 := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("copy1")})
		two, out2 := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("copy2")})
		if one != "copied" || two != "copied" || out1.Metadata["a"] != "1" || len(out2.Metadata) != 1 || out2.Metadata["b"] != "2" {
			t.Errorf("%q %v, %q %v", one, out1.Metadata, two, out2.Metadata)
		}
	})
	inBucket("presigned", func(t *testing.T, w *world) {
		w.put(b, "signed key.tar", "presigned")
		signed, err := s3.NewPresignClient(w.s3).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("signed key.tar")}, s3.WithPresignExpires(time.Minute))
		w.check(err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, signed.URL, nil)
		w.check(err)
		resp, err := http.DefaultClient.Do(req)
		w.check(err)
		defer http.DefaultClient.CloseIdleConnections()
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(text) != "presigned" {
			t.Errorf("%s: %s", resp.Status, text)
		}
	})
	inBucket("answers' headers on demand", func(t *testing.T, w *world) {
		w.put(b, "dispo", "x")
		_, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("dispo"), ResponseContentDisposition: aws.String("attachment"), ResponseContentType: aws.String("text/x")})
		if *out.ContentDisposition != "attachment" || *out.ContentType != "text/x" {
			t.Errorf("%s, %s", *out.ContentDisposition, *out.ContentType)
		}
	})
}

func TestRanges(t *testing.T) {
	w := newWorld(t)
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
			if got != want.content || aws.ToString(out.ContentRange) != want.rangeHeader || *out.ContentLength != int64(len(want.content)) {
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
		out, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: &key, Range: aws.String("bytes=0-9")})
		w.in(t).check(err)
		if *out.ContentLength != 10 || aws.ToString(out.ContentRange) != "bytes 0-9/1000" {
			t.Errorf("%d, %s", *out.ContentLength, aws.ToString(out.ContentRange))
		}
	})
}

func TestConditions(t *testing.T) {
	w := newWorld(t)
	b, key := w.newBucket(), "conditional"
	etag := w.put(b, key, "v1").ETag
	other := aws.String(`"00000000000000000000000000000000"`)
	past, future := aws.Time(time.Now().Add(-time.Hour)), aws.Time(time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		in   s3.GetObjectInput
		want int
	}{
		"If-Match, the same":         {s3.GetObjectInput{IfMatch: etag}, 200},
		"If-Match, without quotes":   {s3.GetObjectInput{IfMatch: aws.String(strings.Trim(*etag, `"`))}, 200},
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
	w := newWorld(t)
	b := w.newBucket()
	text := content(50_000)
	sha := sha256.Sum256([]byte(text))
	nvme := crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5))
	io.WriteString(nvme, text) //nolint:errcheck // a hash takes everything
	crc := crc32.NewIEEE()
	io.WriteString(crc, text) //nolint:errcheck // a hash takes everything
	values := map[types.ChecksumAlgorithm]string{"SHA256": b64(sha[:]), "CRC64NVME": b64(nvme.Sum(nil)), "CRC32": b64(crc.Sum(nil))}
	get := func(o *s3.HeadObjectOutput) map[types.ChecksumAlgorithm]string {
		return map[types.ChecksumAlgorithm]string{"SHA256": aws.ToString(o.ChecksumSHA256), "CRC64NVME": aws.ToString(o.ChecksumCRC64NVME), "CRC32": aws.ToString(o.ChecksumCRC32)}
	}
	for alg, want := range values {
		t.Run(string(alg)+" is kept and returned", func(t *testing.T) {
			_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String(string(alg)), Body: strings.NewReader(text), ChecksumAlgorithm: alg})
			w.in(t).check(err)
			head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String(string(alg)), ChecksumMode: "ENABLED"})
			w.in(t).check(err)
			if got := get(head)[alg]; got != want || head.ChecksumType != types.ChecksumTypeFullObject {
				t.Errorf("%s %q, want %q", head.ChecksumType, got, want)
			}
			quiet, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String(string(alg))})
			w.in(t).check(err)
			if got := get(quiet)[alg]; got != "" {
				t.Errorf("unasked: %q", got)
			}
			if got, _ := w.in(t).get(&s3.GetObjectInput{Bucket: &b, Key: aws.String(string(alg)), ChecksumMode: "ENABLED"}); got != text {
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
		_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"), ChecksumSHA256: aws.String(values["SHA256"])})
		refused(t, err, "BadDigest")
		_, err = w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"), ContentMD5: aws.String("1B2M2Y8AsgTpgAmY7PhCfg==")})
		refused(t, err, "BadDigest")
		_, err = w.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("wrong"), Body: strings.NewReader("other"), ContentMD5: aws.String("short")})
		refused(t, err, "InvalidDigest")
		_, err = w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("wrong")})
		failed[*types.NotFound](t, err)
	})
	t.Run("none on a range", func(t *testing.T) {
		w.in(t).put(b, "ranged", text)
		_, out := w.in(t).get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("ranged"), ChecksumMode: "ENABLED", Range: aws.String("bytes=1-100")})
		if out.ChecksumCRC32 != nil || out.ChecksumCRC64NVME != nil {
			t.Errorf("got %v, %v", out.ChecksumCRC32, out.ChecksumCRC64NVME)
		}
	})
}

func TestListing(t *testing.T) {
	w := newWorld(t)
	b := w.newBucket()
	keys := []string{"a", "dir/1", "dir/2", "dir/sub/3", "other/4", "z <&> +%"}
	for _, k := range keys {
		w.put(b, k, k)
	}
	for name, c := range map[string]struct {
		in   s3.ListObjectsV2Input
		want []string // prefixes end in a slash
	}{
		"all":                        {s3.ListObjectsV2Input{}, keys},
		"a prefix":                   {s3.ListObjectsV2Input{Prefix: aws.String("dir/")}, []string{"dir/1", "dir/2", "dir/sub/3"}},
		"a prefix that is no folder": {s3.ListObjectsV2Input{Prefix: aws.String("di")}, []string{"dir/1", "dir/2", "dir/sub/3"}},
		"a delimiter":                {s3.ListObjectsV2Input{Delimiter: aws.String("/")}, []string{"a", "dir/", "other/", "z <&> +%"}},
		"both":                       {s3.ListObjectsV2Input{Prefix: aws.String("dir/"), Delimiter: aws.String("/")}, []string{"dir/1", "dir/2", "dir/sub/"}},
		"after a key":                {s3.ListObjectsV2Input{StartAfter: aws.String("dir/2")}, []string{"dir/sub/3", "other/4", "z <&> +%"}},
		"nothing":                    {s3.ListObjectsV2Input{Prefix: aws.String("none")}, nil},
	} {
		for _, size := range []int32{1, 2, 1000} {
			t.Run(fmt.Sprintf("%s, pages of %d", name, size), func(t *testing.T) {
				in := c.in
				in.Bucket, in.MaxKeys = &b, &size
				got, pages := w.in(t).listAll(&in)
				slices.Sort(got)
				if !slices.Equal(got, c.want) || pages != max(1, (len(c.want)+int(size)-1)/int(size)) {
					t.Errorf("%q in %d pages, want %q", got, pages, c.want)
				}
			})
		}
	}
	t.Run("entries have size, ETag and time", func(t *testing.T) {
		out, err := w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, Prefix: aws.String("dir/1")})
		w.in(t).check(err)
		e := out.Contents[0]
		if *e.Size != 5 || !strings.HasPrefix(*e.ETag, `"`) || e.LastModified.IsZero() || e.StorageClass != "STANDARD" || *out.KeyCount != 1 {
			t.Errorf("%+v", e)
		}
	})
	t.Run("keys encoded on demand", func(t *testing.T) {
		out, err := w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, Prefix: aws.String("z"), EncodingType: "url"})
		w.in(t).check(err)
		if got := *out.Contents[0].Key; got != "z%20%3C%26%3E%20%2B%25" && got != "z+%3C%26%3E+%2B%25" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("version 1", func(t *testing.T) {
		out, err := w.s3.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: &b, Delimiter: aws.String("/"), MaxKeys: aws.Int32(2)})
		w.in(t).check(err)
		if !*out.IsTruncated || *out.NextMarker != "dir/" {
			t.Fatalf("%+v", out)
		}
		out, err = w.s3.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: &b, Delimiter: aws.String("/"), Marker: out.NextMarker})
		w.in(t).check(err)
		if len(out.CommonPrefixes) != 1 || *out.CommonPrefixes[0].Prefix != "other/" || len(out.Contents) != 1 || *out.IsTruncated {
			t.Errorf("%+v", out)
		}
	})
}

// listAll pages through a listing, and returns keys and common prefixes.
func (w *world) listAll(in *s3.ListObjectsV2Input) (all []string, pages int) {
	w.t.Helper()
	p := s3.NewListObjectsV2Paginator(w.s3, in)
	for p.HasMorePages() {
		page, err := p.NextPage(w.t.Context())
		w.check(err)
		pages++
		for _, o := range page.Contents {
			all = append(all, *o.Key)
		}
		for _, c := range page.CommonPrefixes {
			all = append(all, *c.Prefix)
		}
	}
	return all, pages
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	b := w.newBucket()
	key := aws.String("versioned")
	old := w.put(b, *key, "before versioning")
	if old.VersionId != nil {
		t.Errorf("a version without versioning: %s", *old.VersionId)
	}
	_, err := w.s3.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &b, VersioningConfiguration: &types.VersioningConfiguration{Status: "Enabled"}})
	w.check(err)
	state, err := w.s3.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: &b})
	w.check(err)
	if state.Status != "Enabled" {
		t.Errorf("status %s", state.Status)
	}
	one, two := w.put(b, *key, "one"), w.put(b, *key, "two")
	for id, want := range map[string]string{"null": "before versioning", *one.VersionId: "one", *two.VersionId: "two"} {
		if got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: key, VersionId: &id}); got != want || *out.VersionId != id {
			t.Errorf("version %s holds %q, want %q", id, got, want)
		}
	}
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key, VersionId: aws.String("nonsense")})
	refused(t, err, "NoSuchVersion", "InvalidArgument")
	marker, err := w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key})
	w.check(err)
	if !*marker.DeleteMarker || marker.VersionId == nil {
		t.Fatalf("%+v", marker)
	}
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
	failed[*types.NoSuchKey](t, err)
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key, VersionId: marker.VersionId})
	if status(err) != http.StatusMethodNotAllowed {
		t.Errorf("a delete marker: %v", err)
	}
	list, err := w.s3.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &b})
	w.check(err)
	if len(list.Versions) != 3 || len(list.DeleteMarkers) != 1 || *list.Versions[0].VersionId != *two.VersionId || !*list.DeleteMarkers[0].IsLatest {
		t.Errorf("%+v", list)
	}
	_, err = w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key, VersionId: marker.VersionId})
	w.check(err)
	if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: key}); got != "two" {
		t.Errorf("after the marker is gone: %q", got)
	}
	_, err = w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key, VersionId: two.VersionId})
	w.check(err)
	if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: key}); got != "one" {
		t.Errorf("after the latest is gone: %q", got)
	}
}
