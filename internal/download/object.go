package download

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// noVersion is S3's version id for an object without a version. It pins nothing: the next
// upload without a version replaces the object.
const noVersion = "null"

// getInput is the request for an object. It pins the object: a version never changes, and
// with If-Match S3 answers 412 rather than with other bytes. With the checksum mode set,
// the SDK validates S3's full-object checksum, if there is one, while the body is read.
func getInput(obj Object) *s3.GetObjectInput {
	in := &s3.GetObjectInput{
		Bucket:       aws.String(obj.Bucket),
		Key:          aws.String(obj.Key),
		ChecksumMode: types.ChecksumModeEnabled,
	}
	in.VersionId, in.IfMatch = pin(obj)
	return in
}

// pin returns the version or, without one, the ETag as a precondition.
func pin(obj Object) (version, ifMatch *string) {
	tag := etag(&obj.ETag)
	switch {
	case versionID(&obj.VersionID) != "":
		return aws.String(obj.VersionID), nil
	case tag != "":
		return nil, aws.String(`"` + tag + `"`)
	}
	return nil, nil
}

// source has the evidence for the origin of an answer, from its headers.
type source struct {
	etag string // without quotes
	id   bool   // it has a request id: S3 and compatible servers send one
	page bool   // it is HTML, for people
}

func sourceOf(meta middleware.Metadata, tag, contentType *string) source {
	id, _ := awsmiddleware.GetRequestIDMetadata(meta)
	return source{
		etag: etag(tag), id: id != "",
		page: strings.HasPrefix(strings.ToLower(aws.ToString(contentType)), "text/html"),
	}
}

// proven reports whether the answer is certainly S3's, so an image may be given up
// because of it. Nobody else knows the notified ETag.
func (s source) proven(want string) bool { return s.id || s.etag != "" && s.etag == want }

// likely reports whether the answer may be about an object: S3 sends an ETag with each.
func (s source) likely(want string) bool { return s.proven(want) || s.etag != "" && !s.page }

// checkAnswer checks the answer's headers before a byte is read, and returns the expected
// length, 0 if it is unknown. It compares the ETag although the request was pinned: not
// every S3 honours If-Match.
func (d *Downloader) checkAnswer(out *s3.GetObjectOutput, obj Object) (total int64, err error) {
	total = aws.ToInt64(out.ContentLength)
	from, want := sourceOf(out.ResultMetadata, out.ETag, out.ContentType), etag(&obj.ETag)
	if !from.likely(want) {
		return 0, fmt.Errorf("%w: it has neither the ETag of an object nor a request id", ErrNotS3)
	}
	other := out.ContentLength != nil && obj.Size > 0 && total != obj.Size
	switch got := from.etag; {
	case other && got != "" && got == want:
		return 0, fmt.Errorf("%w: the ETag is the one notified, but it has %d bytes, notified were %d",
			ErrNotS3, total, obj.Size)
	case (other || got != "" && want != "" && got != want) && !from.proven(want):
		return 0, fmt.Errorf("%w: ETag is %q without a request id, notified was %q", ErrNotS3, got, want)
	case got != "" && want != "" && got != want:
		return 0, fmt.Errorf("%w: ETag is %q, notified was %q", ErrChanged, got, want)
	case total > d.cfg.MaxBytes:
		return 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooBig, total, d.cfg.MaxBytes)
	case other:
		return 0, fmt.Errorf("%w: it has %d bytes, notified were %d", ErrChanged, total, obj.Size)
	case out.ContentLength == nil:
		total = obj.Size
	}
	return total, nil
}

// identity identifies the bytes of an object: downloads of the same identity bring the
// same bytes.
type identity struct {
	Bucket, Key string
	Pin         string // the version asked for, if any
	VersionID   string // as S3 answered
	ETag        string
	Size        int64
	Checksum    checksum
}

// headIdentity asks S3 for the object's identity. confirmed reports whether ETag and size
// are the notified ones. If they are not, the request of the whole object finds out why:
// the answer to a HEAD has no body to say so.
func (d *Downloader) headIdentity(ctx context.Context, wd *watchdog, obj Object) (
	id identity, confirmed bool, err error,
) {
	in := &s3.HeadObjectInput{
		Bucket: aws.String(obj.Bucket), Key: aws.String(obj.Key),
		ChecksumMode: types.ChecksumModeEnabled,
	}
	in.VersionId, in.IfMatch = pin(obj)
	wd.arm()
	out, err := d.api.HeadObject(ctx, in)
	wd.disarm()
	if err != nil {
		return identity{}, false, translate(err)
	}
	want := etag(&obj.ETag)
	from := sourceOf(out.ResultMetadata, out.ETag, out.ContentType)
	if !from.likely(want) {
		return identity{}, false, fmt.Errorf("%w: a HEAD without an ETag", ErrNotS3)
	}
	id = identity{
		Bucket: obj.Bucket, Key: obj.Key, Pin: versionID(&obj.VersionID), VersionID: versionID(out.VersionId),
		ETag: from.etag, Size: aws.ToInt64(out.ContentLength), Checksum: headChecksum(out),
	}
	return id, id.ETag != "" && (want == "" || id.ETag == want) && id.Size == obj.Size, nil
}

// object returns the object to request for the identity. It is always pinned.
func (id identity) object() Object {
	return Object{Bucket: id.Bucket, Key: id.Key, VersionID: id.Pin, ETag: id.ETag, Size: id.Size}
}

// etagSuffixes are appended to ETags by servers on the way, Jetty and Apache, if they
// offer to compress the answer.
var etagSuffixes = []string{"--gzip", "-gzip", "-br"}

// etag is the original entity tag of S3: without its quotes, without the mark of a weak
// tag (nginx adds it), and without etagSuffixes.
func etag(tag *string) string {
	t := strings.TrimSpace(aws.ToString(tag))
	t = strings.Trim(strings.TrimPrefix(t, "W/"), `"`)
	for _, d := range etagSuffixes {
		if bare, found := strings.CutSuffix(t, d); found {
			return bare
		}
	}
	return t
}

// versionID returns the version, "" if there is none.
func versionID(id *string) string {
	if v := aws.ToString(id); v != noVersion {
		return v
	}
	return ""
}
