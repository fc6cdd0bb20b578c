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

// noVersion is the version id that S3 gives to an object without one. It pins nothing:
// the next upload without a version replaces it.
const noVersion = "null"

// request pins the object: a version never changes, and with If-Match S3 answers 412
// rather than with other bytes. With the checksum mode set the SDK validates the
// full-object checksum, where S3 has one, as the body is read.
func request(obj Object) *s3.GetObjectInput {
	in := &s3.GetObjectInput{
		Bucket:       aws.String(obj.Bucket),
		Key:          aws.String(obj.Key),
		ChecksumMode: types.ChecksumModeEnabled,
	}
	in.VersionId, in.IfMatch = pin(obj)
	return in
}

// pin is the version, or else the ETag as a precondition.
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

// source is what the head of an answer shows of where it comes from.
type source struct {
	etag string // without quotes
	id   bool   // it has the id that S3 gives to a request, and so do the servers that speak S3
	page bool   // it is a text for people
}

func sourceOf(meta middleware.Metadata, tag, contentType *string) source {
	id, _ := awsmiddleware.GetRequestIDMetadata(meta)
	return source{
		etag: etag(tag), id: id != "",
		page: strings.HasPrefix(strings.ToLower(aws.ToString(contentType)), "text/html"),
	}
}

// proven reports whether the answer is certainly S3's: enough to end an image's life by
// what it says. Nobody else knows the ETag that was notified.
func (s source) proven(want string) bool { return s.id || s.etag != "" && s.etag == want }

// likely reports whether the answer may be of an object at all: S3 sends an ETag with
// each.
func (s source) likely(want string) bool { return s.proven(want) || s.etag != "" && !s.page }

// admit judges the answer's headers before a byte is read, and returns the length to
// expect, 0 if there is none. The ETag is compared although the request was pinned: not
// every S3 honours If-Match.
func (d *Downloader) admit(out *s3.GetObjectOutput, obj Object) (total int64, err error) {
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

// identity is an object as S3 knows it: two downloads of the same identity bring the same
// bytes.
type identity struct {
	Bucket, Key string
	Pin         string // the version asked for, if any
	VersionID   string // as S3 answered
	ETag        string
	Size        int64
	Checksum    checksum
}

// look asks S3 for the object's identity. It answers false unless S3 confirms, by ETag
// and size, that it has what was notified; why it has not is for the request of the whole
// object to find out: the answer to a HEAD has no body to tell.
func (d *Downloader) look(ctx context.Context, dog *watchdog, obj Object) (id identity, confirmed bool, err error) {
	in := &s3.HeadObjectInput{
		Bucket: aws.String(obj.Bucket), Key: aws.String(obj.Key),
		ChecksumMode: types.ChecksumModeEnabled,
	}
	in.VersionId, in.IfMatch = pin(obj)
	dog.listen()
	out, err := d.api.HeadObject(ctx, in)
	dog.pause()
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
		ETag: from.etag, Size: aws.ToInt64(out.ContentLength), Checksum: ofHead(out),
	}
	return id, id.ETag != "" && (want == "" || id.ETag == want) && id.Size == obj.Size, nil
}

// object is the identity as what to ask for. It is pinned in any case.
func (id identity) object() Object {
	return Object{Bucket: id.Bucket, Key: id.Key, VersionID: id.Pin, ETag: id.ETag, Size: id.Size}
}

// decorations are what servers on the way, Jetty and Apache, append to the ETag of what
// they offer to compress.
var decorations = []string{"--gzip", "-gzip", "-br"}

// etag is the entity tag as S3 gave it: without its quotes, without the mark of a weak
// one, which nginx makes of it, and without decorations.
func etag(tag *string) string {
	t := strings.TrimSpace(aws.ToString(tag))
	t = strings.Trim(strings.TrimPrefix(t, "W/"), `"`)
	for _, d := range decorations {
		if bare, found := strings.CutSuffix(t, d); found {
			return bare
		}
	}
	return t
}

// versionID is the version, "" for none.
func versionID(id *string) string {
	if v := aws.ToString(id); v != noVersion {
		return v
	}
	return ""
}
