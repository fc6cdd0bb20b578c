package emulator_test

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"crypto/sha256"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// bigPart is the smallest part that may be followed by another.
const bigPart = 5 << 20

// multipart uploads parts and completes them. Complete names the parts' checksums
// where the upload declares an algorithm, as S3 demands then, and refuses otherwise.
func (w *testbed) multipart(b, key string, in s3.CreateMultipartUploadInput,
	parts ...string,
) *s3.CompleteMultipartUploadOutput {
	w.t.Helper()
	in.Bucket, in.Key = &b, &key
	up, err := w.s3.CreateMultipartUpload(w.t.Context(), &in)
	w.check(err)
	var done []types.CompletedPart
	for i, p := range parts {
		number := aws.Int32(int32(i + 1))
		out, err := w.s3.UploadPart(w.t.Context(), &s3.UploadPartInput{
			Bucket: &b, Key: &key, UploadId: up.UploadId, PartNumber: number, Body: strings.NewReader(p),
			ChecksumAlgorithm: in.ChecksumAlgorithm,
		})
		w.check(err)
		part := types.CompletedPart{PartNumber: number, ETag: out.ETag}
		claim(&part, in.ChecksumAlgorithm, checksumOf(in.ChecksumAlgorithm, p))
		done = append(done, part)
	}
	out, err := w.s3.CompleteMultipartUpload(w.t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &b, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
		ChecksumType: in.ChecksumType,
	})
	w.check(err)
	return out
}

func TestMultipart(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	first, second := content(bigPart), content(1000)
	t.Run("content, ETag and parts", func(t *testing.T) {
		w := w.in(t)
		out := w.multipart(b, "parts", s3.CreateMultipartUploadInput{ContentType: aws.String("application/x-tar")},
			first, second)
		one, two := md5.Sum([]byte(first)),
			md5.Sum([]byte(second)) //nolint:gosec // what ETags are made of
		want := fmt.Sprintf(`"%x-2"`,
			md5.Sum(slices.Concat(one[:], two[:]))) //nolint:gosec // what ETags are made of
		got, whole := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("parts")}) // across the files
		if aws.ToString(out.ETag) != want || aws.ToString(whole.ETag) != want || got != first+second ||
			aws.ToString(whole.ContentType) != "application/x-tar" {
			t.Errorf("ETag %s, want %s; %d bytes", aws.ToString(whole.ETag), want, len(got))
		}
		got, part := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("parts"), PartNumber: aws.Int32(2)})
		if got != second || aws.ToInt32(part.PartsCount) != 2 ||
			aws.ToString(part.ContentRange) != fmt.Sprintf("bytes %d-%d/%d", bigPart, bigPart+999, bigPart+1000) {
			t.Errorf("part 2: %d bytes, %d parts, %s",
				len(got), aws.ToInt32(part.PartsCount), aws.ToString(part.ContentRange))
		}
		_, err := w.s3.GetObject(t.Context(),
			&s3.GetObjectInput{Bucket: &b, Key: aws.String("parts"), PartNumber: aws.Int32(3)})
		if status(err) != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("part 3: %v", err)
		}
		got, _ = w.get(&s3.GetObjectInput{
			Bucket: &b, Key: aws.String("parts"),
			Range: aws.String(fmt.Sprintf("bytes=%d-%d", bigPart-10, bigPart+9)),
		})
		if got != first[bigPart-10:]+second[:10] {
			t.Errorf("across the boundary: %q", got)
		}
	})
	t.Run("a composite checksum", func(t *testing.T) {
		w := w.in(t)
		w.multipart(b, "sha", s3.CreateMultipartUploadInput{ChecksumAlgorithm: "SHA256"}, first, second)
		one, two := sha256.Sum256([]byte(first)), sha256.Sum256([]byte(second))
		both := sha256.Sum256(slices.Concat(one[:], two[:]))
		head, err := w.s3.HeadObject(t.Context(),
			&s3.HeadObjectInput{Bucket: &b, Key: aws.String("sha"), ChecksumMode: "ENABLED"})
		w.check(err)
		if aws.ToString(head.ChecksumSHA256) != b64(both[:])+"-2" || head.ChecksumType != types.ChecksumTypeComposite {
			t.Errorf("%s %s", head.ChecksumType, aws.ToString(head.ChecksumSHA256))
		}
		if got, out := w.get(&s3.GetObjectInput{
			Bucket: &b, Key: aws.String("sha"), PartNumber: aws.Int32(2),
			ChecksumMode: "ENABLED",
		}); got != second || aws.ToString(out.ChecksumSHA256) != b64(two[:]) {
			t.Errorf("part 2: %d bytes, %s", len(got), aws.ToString(out.ChecksumSHA256))
		}
	})
	t.Run("a full-object checksum", func(t *testing.T) {
		w := w.in(t)
		w.multipart(b, "crc", s3.CreateMultipartUploadInput{
			ChecksumAlgorithm: "CRC64NVME",
			ChecksumType:      "FULL_OBJECT",
		}, first, second)
		nvme := crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5))
		io.WriteString(nvme, first+second) //nolint:errcheck // a hash takes everything
		head, err := w.s3.HeadObject(t.Context(),
			&s3.HeadObjectInput{Bucket: &b, Key: aws.String("crc"), ChecksumMode: "ENABLED"})
		w.check(err)
		if aws.ToString(head.ChecksumCRC64NVME) != b64(nvme.Sum(nil)) ||
			head.ChecksumType != types.ChecksumTypeFullObject {
			t.Errorf("%s %s", head.ChecksumType, aws.ToString(head.ChecksumCRC64NVME))
		}
	})
	t.Run("listed, aborted", func(t *testing.T) { aborted(t, w.in(t), b) })
	t.Run("bad lists of parts", func(t *testing.T) { badParts(t, w.in(t), b) })
	t.Run("parts of another object", func(t *testing.T) {
		w := w.in(t)
		w.put(b, "source", content(1000))
		up, err := w.s3.CreateMultipartUpload(t.Context(),
			&s3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("made")})
		w.check(err)
		p, err := w.s3.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
			Bucket: &b, Key: aws.String("made"), UploadId: up.UploadId, PartNumber: aws.Int32(1),
			CopySource: aws.String(b + "/source"), CopySourceRange: aws.String("bytes=10-19"),
		})
		w.check(err)
		if p.CopyPartResult == nil {
			t.Fatalf("%+v", p)
		}
		_, err = w.s3.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: &b, Key: aws.String("made"), UploadId: up.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{
				PartNumber: aws.Int32(1),
				ETag:       p.CopyPartResult.ETag,
			}}},
		})
		w.check(err)
		if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("made")}); got != content(1000)[10:20] {
			t.Errorf("got %q", got)
		}
	})
}

func aborted(t *testing.T, w *testbed, b string) {
	key := aws.String("aborted")
	up, err := w.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: key})
	w.check(err)
	for i := range int32(3) {
		_, err = w.s3.UploadPart(t.Context(),
			&s3.UploadPartInput{
				Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(i + 1),
				Body: strings.NewReader("part"),
			})
		w.check(err)
	}
	pages := s3.NewListPartsPaginator(w.s3,
		&s3.ListPartsInput{Bucket: &b, Key: key, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
	var numbers []int32
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		w.check(err)
		for _, p := range page.Parts {
			numbers = append(numbers, aws.ToInt32(p.PartNumber))
		}
	}
	uploads, err := w.s3.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &b, Prefix: key})
	w.check(err)
	if !slices.Equal(numbers, []int32{1, 2, 3}) || len(uploads.Uploads) != 1 ||
		aws.ToString(uploads.Uploads[0].UploadId) != aws.ToString(up.UploadId) {
		t.Errorf("parts %v, uploads %v", numbers, uploads.Uploads)
	}
	_, err = w.s3.AbortMultipartUpload(t.Context(),
		&s3.AbortMultipartUploadInput{Bucket: &b, Key: key, UploadId: up.UploadId})
	w.check(err)
	_, err = w.s3.UploadPart(t.Context(),
		&s3.UploadPartInput{
			Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1),
			Body: strings.NewReader("late"),
		})
	refused(t, err, "NoSuchUpload")
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
	failed[*types.NoSuchKey](t, err)
}

func badParts(t *testing.T, w *testbed, b string) {
	key := aws.String("bad")
	up, err := w.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: key})
	w.check(err)
	var parts []types.CompletedPart
	for i := range int32(2) {
		p, err := w.s3.UploadPart(t.Context(),
			&s3.UploadPartInput{
				Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(i + 1),
				Body: strings.NewReader("small"),
			})
		w.check(err)
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(i + 1), ETag: p.ETag})
	}
	try := func(list ...types.CompletedPart) error {
		_, err := w.s3.CompleteMultipartUpload(t.Context(),
			&s3.CompleteMultipartUploadInput{
				Bucket: &b, Key: key, UploadId: up.UploadId,
				MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
			})
		return err
	}
	refused(t, try(parts[1], parts[0]), "InvalidPartOrder")
	refused(t, try(parts[0], parts[1]), "EntityTooSmall")
	refused(t, try(types.CompletedPart{PartNumber: aws.Int32(1), ETag: aws.String(`"0"`)}), "InvalidPart")
	refused(t, try(types.CompletedPart{PartNumber: aws.Int32(7), ETag: parts[0].ETag}), "InvalidPart")
	w.check(try(parts[1])) // the other is dropped
	if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: key}); got != "small" {
		t.Errorf("got %q", got)
	}
}
