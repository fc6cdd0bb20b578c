package emulator_test

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"fmt"
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
		"made, found, listed, deleted": func(t *testing.T, w *testbed) {
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
			if !slices.ContainsFunc(list.Buckets,
				func(x types.Bucket) bool {
					return aws.ToString(x.Name) == b && !aws.ToTime(x.CreationDate).
						IsZero()
				}) {
				t.Errorf("%s is not in the list", b)
			}
			_, err = w.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &b})
			w.check(err)
			_, err = w.s3.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &b})
			failed[*types.NotFound](t, err)
		},
		"made again in us-east-1 is not an error": func(t *testing.T, w *testbed) {
			b := w.newBucket()
			_, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &b})
			w.check(err)
		},
		"one with objects is not deleted": func(t *testing.T, w *testbed) {
			b := w.newBucket()
			w.put(b, "x", "x")
			_, err := w.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &b})
			refused(t, err, "BucketNotEmpty")
		},
		"a bad name is refused": func(t *testing.T, w *testbed) {
			_, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("Not_A_Bucket")})
			refused(t, err, "InvalidBucketName")
		},
		"a missing one is a typed error": func(t *testing.T, w *testbed) {
			b := unique("cim")
			_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("x")})
			refused(t, err, "NoSuchBucket")
			_, err = w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b})
			failed[*types.NoSuchBucket](t, err)
			_, err = w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{Bucket: &b, Key: aws.String("x"), Body: strings.NewReader("x")})
			refused(t, err, "NoSuchBucket")
		},
		"location": func(t *testing.T, w *testbed) {
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
	w := newTestbed(t)
	b := w.newBucket()
	inBucket := func(name string, check func(t *testing.T, w *testbed)) {
		t.Run(name, func(t *testing.T) { check(t, w.in(t)) })
	}
	inBucket("content, ETag, size and metadata come back", func(t *testing.T, w *testbed) {
		text := content(100_000)
		_, err := w.s3.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b, Key: aws.String("meta"), Body: strings.NewReader(text),
			ContentType:  aws.String("application/x-tar"),
			CacheControl: aws.String("no-cache"), ContentEncoding: aws.String("identity"),
			Metadata: map[string]string{"digest": "abc"},
		})
		w.check(err)
		got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("meta")})
		sum := md5.Sum([]byte(text)) //nolint:gosec // what ETags are made of
		if got != text || aws.ToString(out.ETag) != fmt.Sprintf(`"%x"`, sum) ||
			aws.ToInt64(out.ContentLength) != 100_000 || aws.ToString(out.AcceptRanges) != "bytes" {
			t.Errorf("%d bytes, %+v", len(got), out)
		}
		if aws.ToString(out.ContentType) != "application/x-tar" || aws.ToString(out.CacheControl) != "no-cache" ||
			aws.ToString(out.ContentEncoding) != "identity" || out.Metadata["digest"] != "abc" {
			t.Errorf("headers %+v", out)
		}
		head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("meta")})
		w.check(err)
		if aws.ToString(head.ETag) != aws.ToString(out.ETag) || aws.ToInt64(head.ContentLength) != 100_000 ||
			head.Metadata["digest"] != "abc" || !aws.ToTime(head.LastModified).Equal(aws.ToTime(out.LastModified)) {
			t.Errorf("head %+v", head)
		}
	})
	inBucket("odd keys", func(t *testing.T, w *testbed) {
		for _, key := range []string{
			"a b+c%2Bd.tar", "äöü/日本.tar", "..", "a//b", "/lead", "trail/", "q?x=1&y#z",
			`quote"'`, "per%cent", strings.Repeat("k", 1024),
		} {
			w.put(b, key, "at "+key)
			if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: &key}); got != "at "+key {
				t.Errorf("%q holds %q", key, got)
			}
		}
		_, err := w.s3.PutObject(t.Context(),
			&s3.PutObjectInput{Bucket: &b, Key: aws.String(strings.Repeat("k", 1025)), Body: strings.NewReader("x")})
		refused(t, err, "KeyTooLongError")
	})
	inBucket("an empty object", func(t *testing.T, w *testbed) {
		w.put(b, "empty", "")
		if got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("empty")}); got != "" ||
			aws.ToString(out.ETag) != `"d41d8cd98f00b204e9800998ecf8427e"` {
			t.Errorf("%q, %s", got, aws.ToString(out.ETag))
		}
	})
	inBucket("a missing one is a typed error", func(t *testing.T, w *testbed) {
		_, err := w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("missing")})
		failed[*types.NoSuchKey](t, err)
		_, err = w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("missing")})
		failed[*types.NotFound](t, err)
		if status(err) != http.StatusNotFound {
			t.Errorf("status %d", status(err))
		}
	})
	inBucket("overwritten, deleted, and deleted again", func(t *testing.T, w *testbed) {
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
	inBucket("several deleted at once", func(t *testing.T, w *testbed) {
		w.put(b, "del/1", "x")
		w.put(b, "del/<2>", "x")
		out, err := w.s3.DeleteObjects(t.Context(),
			&s3.DeleteObjectsInput{Bucket: &b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
				{Key: aws.String("del/1")}, {Key: aws.String("del/<2>")}, {Key: aws.String("del/missing")},
			}}})
		w.check(err)
		list, err := w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b, Prefix: aws.String("del/")})
		w.check(err)
		if len(out.Deleted) != 3 || len(out.Errors) != 0 || len(list.Contents) != 0 {
			t.Errorf("%d deleted, %d errors, %d left", len(out.Deleted), len(out.Errors), len(list.Contents))
		}
	})
	inBucket("copied, with its metadata or others", func(t *testing.T, w *testbed) {
		key := "copy source+%.tar"
		_, err := w.s3.PutObject(t.Context(),
			&s3.PutObjectInput{
				Bucket: &b, Key: &key, Body: strings.NewReader("copied"),
				Metadata: map[string]string{"a": "1"},
			})
		w.check(err)
		source := b + "/copy%20source%2B%25.tar"
		_, err = w.s3.CopyObject(t.Context(),
			&s3.CopyObjectInput{Bucket: &b, Key: aws.String("copy1"), CopySource: &source})
		w.check(err)
		_, err = w.s3.CopyObject(t.Context(),
			&s3.CopyObjectInput{
				Bucket: &b, Key: aws.String("copy2"), CopySource: &source, MetadataDirective: "REPLACE",
				Metadata: map[string]string{"b": "2"},
			})
		w.check(err)
		_, err = w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: &key})
		w.check(err)
		one, out1 := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("copy1")})
		two, out2 := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("copy2")})
		if one != "copied" || two != "copied" || out1.Metadata["a"] != "1" || len(out2.Metadata) != 1 ||
			out2.Metadata["b"] != "2" {
			t.Errorf("%q %v, %q %v", one, out1.Metadata, two, out2.Metadata)
		}
	})
	inBucket("presigned", func(t *testing.T, w *testbed) {
		w.put(b, "signed key.tar", "presigned")
		signed, err := s3.NewPresignClient(w.s3).
			PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("signed key.tar")},
				s3.WithPresignExpires(time.Minute))
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
	inBucket("answers' headers on demand", func(t *testing.T, w *testbed) {
		w.put(b, "dispo", "x")
		_, out := w.get(&s3.GetObjectInput{
			Bucket: &b, Key: aws.String("dispo"),
			ResponseContentDisposition: aws.String("attachment"), ResponseContentType: aws.String("text/x"),
		})
		if aws.ToString(out.ContentDisposition) != "attachment" || aws.ToString(out.ContentType) != "text/x" {
			t.Errorf("%s, %s", aws.ToString(out.ContentDisposition), aws.ToString(out.ContentType))
		}
	})
}
