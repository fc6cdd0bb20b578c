package emulator_test

import (
	"crypto/md5" //nolint:gosec // what S3 names a key by
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// secret is a customer's key as a request has it; nil fields are not sent.
type secret struct{ algorithm, key, md5 *string }

// newSecret returns a key of that length, all of whose bytes are the same.
func newSecret(letter string, size int) secret {
	key := strings.Repeat(letter, size)
	sum := md5.Sum([]byte(key)) //nolint:gosec // what S3 names a key by
	return secret{aws.String("AES256"), aws.String(b64([]byte(key))), aws.String(b64(sum[:]))}
}

func (s secret) get(b, key string) *s3.GetObjectInput {
	return &s3.GetObjectInput{
		Bucket: &b, Key: &key, SSECustomerAlgorithm: s.algorithm, SSECustomerKey: s.key,
		SSECustomerKeyMD5: s.md5,
	}
}

func (s secret) put(b, key, content string) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket: &b, Key: &key, Body: strings.NewReader(content), SSECustomerAlgorithm: s.algorithm,
		SSECustomerKey: s.key, SSECustomerKeyMD5: s.md5,
	}
}

// What AWS answers was recorded with it: tests/aws/services/s3/test_s3.snapshot.json
// of LocalStack, the class TestS3SSECEncryption, 2026-02-21.
func TestCustomerKeys(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	right, other := newSecret("k", 32), newSecret("o", 32)
	put, err := w.s3.PutObject(t.Context(), right.put(b, "secret", "content"))
	w.check(err)
	if aws.ToString(put.SSECustomerKeyMD5) != aws.ToString(right.md5) ||
		aws.ToString(put.SSECustomerAlgorithm) != "AES256" || put.ServerSideEncryption != "" {
		t.Errorf("put: %+v", put)
	}
	w.put(b, "plain", "content")
	wrongAlgorithm, noMD5 := right, right
	wrongAlgorithm.algorithm, noMD5.md5 = aws.String("KMS"), nil
	for name, c := range map[string]struct {
		key    string
		secret secret
		status int
		code   string
	}{
		"the key": {key: "secret", secret: right, status: 200},
		"none":    {key: "secret", status: 400, code: "InvalidRequest"},
		"another": {key: "secret", secret: other, status: 403, code: "AccessDenied"},
		"of another algorithm": {
			key: "secret", secret: wrongAlgorithm, status: 400,
			code: "InvalidEncryptionAlgorithmError",
		},
		"none, and none is needed":   {key: "plain", status: 200},
		"a key where none is needed": {key: "plain", secret: right, status: 400, code: "InvalidRequest"},
	} {
		t.Run("read with "+name, func(t *testing.T) {
			out, err := w.s3.GetObject(t.Context(), c.secret.get(b, c.key))
			if err == nil {
				out.Body.Close()
			}
			if c.code == "" && err != nil || c.code != "" && (code(err) != c.code || status(err) != c.status) {
				t.Errorf("get: %v, want %d %s", err, c.status, c.code)
			}
			in := c.secret.get(b, c.key)
			head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{
				Bucket: in.Bucket, Key: in.Key, SSECustomerAlgorithm: in.SSECustomerAlgorithm,
				SSECustomerKey: in.SSECustomerKey, SSECustomerKeyMD5: in.SSECustomerKeyMD5,
			})
			if c.code != "" {
				if status(err) != c.status {
					t.Errorf("head: %v, want %d", err, c.status)
				}
				return
			}
			w.in(t).check(err)
			if c.key == "secret" && (aws.ToString(head.SSECustomerKeyMD5) != aws.ToString(right.md5) ||
				head.ServerSideEncryption != "") {
				t.Errorf("head: %+v", head)
			}
		})
	}
	short, badMD5, noKey, noAlgorithm := newSecret("k", 10), right, right, right
	badMD5.md5, noKey.key, noAlgorithm.algorithm = other.md5, nil, nil
	for name, c := range map[string]struct {
		secret secret
		method types.ServerSideEncryption
		code   string
	}{
		"a key that is too short": {secret: short, code: "InvalidArgument"},
		"the digest of another":   {secret: badMD5, code: "InvalidArgument"},
		"no digest":               {secret: noMD5, code: "InvalidArgument"},
		"no key":                  {secret: noKey, code: "InvalidArgument"},
		"no algorithm":            {secret: noAlgorithm, code: "InvalidArgument"},
		"another algorithm":       {secret: wrongAlgorithm, code: "InvalidEncryptionAlgorithmError"},
		"also S3's own key":       {secret: right, method: "AES256", code: "InvalidArgument"},
	} {
		t.Run("not stored with "+name, func(t *testing.T) {
			in := c.secret.put(b, "refused", "content")
			in.ServerSideEncryption = c.method
			_, err := w.s3.PutObject(t.Context(), in)
			refused(t, err, c.code)
		})
	}
	t.Run("copied", func(t *testing.T) { copiedSecret(w.in(t), b, right) })
	t.Run("in parts", func(t *testing.T) { secretParts(t, w.in(t), b, right, other) })
}

func copiedSecret(w *testbed, b string, right secret) {
	in := &s3.CopyObjectInput{Bucket: &b, Key: aws.String("opened"), CopySource: aws.String(b + "/secret")}
	_, err := w.s3.CopyObject(w.t.Context(), in)
	refused(w.t, err, "InvalidRequest")
	in.CopySourceSSECustomerAlgorithm, in.CopySourceSSECustomerKey, in.CopySourceSSECustomerKeyMD5 = right.algorithm,
		right.key, right.md5
	out, err := w.s3.CopyObject(w.t.Context(), in)
	w.check(err)
	if out.ServerSideEncryption != "AES256" || out.SSECustomerKeyMD5 != nil {
		w.t.Errorf("copied: %+v", out)
	}
	if got, _ := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("opened")}); got != "content" {
		w.t.Errorf("the copy holds %q", got)
	}
}

// secretParts uploads an object in parts, each of which must have the key.
func secretParts(t *testing.T, w *testbed, b string, right, other secret) {
	key := aws.String("secret parts")
	up, err := w.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
		Bucket: &b, Key: key, SSECustomerAlgorithm: right.algorithm, SSECustomerKey: right.key,
		SSECustomerKeyMD5: right.md5,
	})
	w.check(err)
	part := func(s secret) (*s3.UploadPartOutput, error) {
		return w.s3.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("content"),
			SSECustomerAlgorithm: s.algorithm, SSECustomerKey: s.key, SSECustomerKeyMD5: s.md5,
		})
	}
	for _, s := range []secret{{}, other} {
		_, err := part(s)
		refused(t, err, "InvalidRequest")
	}
	p, err := part(right)
	w.check(err)
	_, err = w.s3.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &b, Key: key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{
			PartNumber: aws.Int32(1),
			ETag:       p.ETag,
		}}},
	})
	w.check(err)
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
	refused(t, err, "InvalidRequest")
	if got, _ := w.get(right.get(b, aws.ToString(key))); got != "content" {
		t.Errorf("got %q", got)
	}
}

// S3 encrypts everything with a key of its own, and says so.
func TestEncryptionIsSaid(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	said := map[string]types.ServerSideEncryption{"put": w.put(b, "k", "x").ServerSideEncryption}
	_, get := w.get(&s3.GetObjectInput{Bucket: &b, Key: aws.String("k")})
	said["get"] = get.ServerSideEncryption
	head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: aws.String("k")})
	w.check(err)
	said["head"] = head.ServerSideEncryption
	copied, err := w.s3.CopyObject(t.Context(),
		&s3.CopyObjectInput{Bucket: &b, Key: aws.String("copy"), CopySource: aws.String(b + "/k")})
	w.check(err)
	said["copy"] = copied.ServerSideEncryption
	up, err := w.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("m")})
	w.check(err)
	said["create"] = up.ServerSideEncryption
	part, err := w.s3.UploadPart(t.Context(),
		&s3.UploadPartInput{
			Bucket: &b, Key: aws.String("m"), UploadId: up.UploadId, PartNumber: aws.Int32(1),
			Body: strings.NewReader("x"),
		})
	w.check(err)
	said["part"] = part.ServerSideEncryption
	done, err := w.s3.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &b, Key: aws.String("m"), UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{
			PartNumber: aws.Int32(1),
			ETag:       part.ETag,
		}}},
	})
	w.check(err)
	said["complete"] = done.ServerSideEncryption
	for op, method := range said {
		if method != "AES256" {
			t.Errorf("%s says %q, want AES256", op, method)
		}
	}
}
