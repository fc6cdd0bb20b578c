package emulator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func tag(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }

// tags are an object's, sorted.
func (w *testbed) tags(b, key string) []string {
	w.t.Helper()
	out, err := w.s3.GetObjectTagging(w.t.Context(), &s3.GetObjectTaggingInput{Bucket: &b, Key: &key})
	w.check(err)
	var tags []string
	for _, t := range out.TagSet {
		tags = append(tags, aws.ToString(t.Key)+"="+aws.ToString(t.Value))
	}
	slices.Sort(tags)
	return tags
}

// What AWS answers was recorded with it: tests/aws/services/s3/test_s3_api.snapshot.json
// of LocalStack, the class TestS3BucketObjectTagging.
func TestTagging(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	has := func(key string, want ...string) {
		t.Helper()
		if got := w.tags(b, key); !slices.Equal(got, want) {
			t.Errorf("%s has the tags %q, want %q", key, got, want)
		}
		head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: &key})
		w.check(err)
		if int(aws.ToInt32(head.TagCount)) != len(want) {
			t.Errorf("%s counts %d tags, want %d", key, aws.ToInt32(head.TagCount), len(want))
		}
	}
	w.put(b, "k", "x")
	has("k")
	_, err := w.s3.PutObject(t.Context(),
		&s3.PutObjectInput{
			Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("x"),
			Tagging: aws.String("b=2%2B&a=1&c="),
		})
	w.check(err)
	has("k", "a=1", "b=2+", "c=")
	_, err = w.s3.PutObjectTagging(t.Context(),
		&s3.PutObjectTaggingInput{
			Bucket: &b, Key: aws.String("k"),
			Tagging: &types.Tagging{TagSet: []types.Tag{tag("d", "4")}},
		})
	w.check(err)
	has("k", "d=4")
	_, err = w.s3.CopyObject(t.Context(),
		&s3.CopyObjectInput{Bucket: &b, Key: aws.String("copy"), CopySource: aws.String(b + "/k")})
	w.check(err)
	has("copy", "d=4")
	_, err = w.s3.CopyObject(t.Context(),
		&s3.CopyObjectInput{
			Bucket: &b, Key: aws.String("copy"), CopySource: aws.String(b + "/k"),
			TaggingDirective: "REPLACE", Tagging: aws.String("e=5"),
		})
	w.check(err)
	has("copy", "e=5")
	has("k", "d=4")
	_, err = w.s3.DeleteObjectTagging(t.Context(), &s3.DeleteObjectTaggingInput{Bucket: &b, Key: aws.String("k")})
	w.check(err)
	has("k")
	w.multipart(b, "parts", s3.CreateMultipartUploadInput{Tagging: aws.String("f=6")}, "part")
	has("parts", "f=6")
	w.put(b, "parts", "overwritten")
	has("parts")
	_, err = w.s3.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &b, Key: aws.String("missing")})
	refused(t, err, "NoSuchKey")
}

func TestTaggingRefused(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	w.put(b, "k", "x")
	var many []types.Tag
	for i := range 11 {
		many = append(many, tag(fmt.Sprint(i), ""))
	}
	for name, c := range map[string]struct {
		tags []types.Tag
		want []string
	}{
		"twice the same key": {tags: []types.Tag{tag("a", "1"), tag("a", "1")}, want: []string{"InvalidTag"}},
		"a comma in a key":   {tags: []types.Tag{tag("a,b", "1")}, want: []string{"InvalidTag"}},
		"AWS's own":          {tags: []types.Tag{tag("aws:a", "1")}, want: []string{"InvalidTag"}},
		"eleven":             {tags: many, want: []string{"InvalidTag", "BadRequest"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.s3.PutObjectTagging(t.Context(),
				&s3.PutObjectTaggingInput{Bucket: &b, Key: aws.String("k"), Tagging: &types.Tagging{TagSet: c.tags}})
			refused(t, err, c.want...)
		})
	}
	for _, header := range []string{"a=1&a=2", "a=1,b=2"} {
		t.Run("uploaded with "+header, func(t *testing.T) {
			_, err := w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("x"), Tagging: &header})
			refused(t, err, "InvalidArgument")
		})
	}
	if got := w.tags(b, "k"); len(got) > 0 {
		t.Errorf("what was refused left %q", got)
	}
}
