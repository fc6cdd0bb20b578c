package emulator_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestListing(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	keys := []string{"a", "dir/1", "dir/2", "dir/sub/3", "other/4", "z <&> +%"}
	for _, k := range keys {
		w.put(b, k, k)
	}
	for name, c := range map[string]struct {
		in   s3.ListObjectsV2Input
		want []string // prefixes end in a slash
	}{
		"all": {s3.ListObjectsV2Input{}, keys},
		"a prefix": {
			s3.ListObjectsV2Input{Prefix: aws.String("dir/")},
			[]string{"dir/1", "dir/2", "dir/sub/3"},
		},
		"a prefix that is not a folder": {
			s3.ListObjectsV2Input{Prefix: aws.String("di")},
			[]string{"dir/1", "dir/2", "dir/sub/3"},
		},
		"a delimiter": {
			s3.ListObjectsV2Input{Delimiter: aws.String("/")},
			[]string{"a", "dir/", "other/", "z <&> +%"},
		},
		"both": {
			s3.ListObjectsV2Input{Prefix: aws.String("dir/"), Delimiter: aws.String("/")},
			[]string{"dir/1", "dir/2", "dir/sub/"},
		},
		"after a key": {
			s3.ListObjectsV2Input{StartAfter: aws.String("dir/2")},
			[]string{"dir/sub/3", "other/4", "z <&> +%"},
		},
		"nothing": {s3.ListObjectsV2Input{Prefix: aws.String("none")}, nil},
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
		if len(out.Contents) != 1 {
			t.Fatalf("%+v", out)
		}
		e := out.Contents[0]
		if aws.ToInt64(e.Size) != 5 || !strings.HasPrefix(aws.ToString(e.ETag), `"`) || aws.ToTime(e.LastModified).
			IsZero() || e.StorageClass != "STANDARD" || aws.ToInt32(out.KeyCount) != 1 {
			t.Errorf("%+v", e)
		}
	})
	t.Run("keys encoded on demand", func(t *testing.T) {
		out, err := w.s3.ListObjectsV2(t.Context(),
			&s3.ListObjectsV2Input{Bucket: &b, Prefix: aws.String("z"), EncodingType: "url"})
		w.in(t).check(err)
		if len(out.Contents) != 1 {
			t.Fatalf("%+v", out)
		}
		if got := aws.ToString(out.Contents[0].Key); got != "z%20%3C%26%3E%20%2B%25" && got != "z+%3C%26%3E+%2B%25" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("version 1", func(t *testing.T) {
		out, err := w.s3.ListObjects(t.Context(),
			&s3.ListObjectsInput{Bucket: &b, Delimiter: aws.String("/"), MaxKeys: aws.Int32(2)})
		w.in(t).check(err)
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextMarker) != "dir/" {
			t.Fatalf("%+v", out)
		}
		out, err = w.s3.ListObjects(t.Context(),
			&s3.ListObjectsInput{Bucket: &b, Delimiter: aws.String("/"), Marker: out.NextMarker})
		w.in(t).check(err)
		if len(out.CommonPrefixes) != 1 || aws.ToString(out.CommonPrefixes[0].Prefix) != "other/" ||
			len(out.Contents) != 1 || aws.ToBool(out.IsTruncated) {
			t.Errorf("%+v", out)
		}
	})
}

// listAll pages through a listing, and returns keys and common prefixes.
func (w *testbed) listAll(in *s3.ListObjectsV2Input) (all []string, pages int) {
	w.t.Helper()
	p := s3.NewListObjectsV2Paginator(w.s3, in)
	for p.HasMorePages() {
		page, err := p.NextPage(w.t.Context())
		w.check(err)
		pages++
		for _, o := range page.Contents {
			all = append(all, aws.ToString(o.Key))
		}
		for _, c := range page.CommonPrefixes {
			all = append(all, aws.ToString(c.Prefix))
		}
	}
	return all, pages
}

func TestVersions(t *testing.T) {
	w := newTestbed(t)
	b := w.newBucket()
	key := aws.String("versioned")
	old := w.put(b, aws.ToString(key), "before versioning")
	if old.VersionId != nil {
		t.Errorf("a version without versioning: %s", aws.ToString(old.VersionId))
	}
	_, err := w.s3.PutBucketVersioning(t.Context(),
		&s3.PutBucketVersioningInput{
			Bucket:                  &b,
			VersioningConfiguration: &types.VersioningConfiguration{Status: "Enabled"},
		})
	w.check(err)
	state, err := w.s3.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: &b})
	w.check(err)
	if state.Status != "Enabled" {
		t.Errorf("status %s", state.Status)
	}
	one, two := w.put(b, aws.ToString(key), "one"), w.put(b, aws.ToString(key), "two")
	for id, want := range map[string]string{
		"null": "before versioning", aws.ToString(one.VersionId): "one",
		aws.ToString(two.VersionId): "two",
	} {
		if got, out := w.get(&s3.GetObjectInput{Bucket: &b, Key: key, VersionId: &id}); got != want ||
			aws.ToString(out.VersionId) != id {
			t.Errorf("version %s holds %q, want %q", id, got, want)
		}
	}
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key, VersionId: aws.String("nonsense")})
	refused(t, err, "NoSuchVersion", "InvalidArgument")
	marker, err := w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: key})
	w.check(err)
	if !aws.ToBool(marker.DeleteMarker) || marker.VersionId == nil {
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
	if len(list.Versions) != 3 || len(list.DeleteMarkers) != 1 ||
		aws.ToString(list.Versions[0].VersionId) != aws.ToString(two.VersionId) ||
		!aws.ToBool(list.DeleteMarkers[0].IsLatest) {
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
