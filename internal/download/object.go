package download

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// request pins the object: a version never changes, and with If-Match S3 answers 412 rather than with other bytes. With the
// checksum mode set the SDK validates the full-object checksum, where S3 has one, as the body is read.
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
	switch {
	case obj.VersionID != "":
		return aws.String(obj.VersionID), nil
	case obj.ETag != "":
		return nil, aws.String(`"` + etag(&obj.ETag) + `"`)
	}
	return nil, nil
}

// admit judges the answer's headers before a byte is read, and returns the length to expect, 0 if there is none. The ETag is
// compared although the request was pinned: not every S3 honours If-Match.
func (d *Downloader) admit(out *s3.GetObjectOutput, obj Object) (total int64, err error) {
	total = aws.ToInt64(out.ContentLength)
	switch got, want := etag(out.ETag), etag(&obj.ETag); {
	case got != "" && want != "" && got != want:
		return 0, fmt.Errorf("%w: ETag is %q, notified was %q", ErrChanged, got, want)
	case total > d.cfg.MaxBytes:
		return 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooBig, total, d.cfg.MaxBytes)
	case out.ContentLength != nil && obj.Size > 0 && total != obj.Size:
		return 0, fmt.Errorf("%w: it has %d bytes, notified were %d", ErrChanged, total, obj.Size)
	case out.ContentLength == nil:
		total = obj.Size
	}
	return total, nil
}

// identity is an object as S3 knows it: two downloads of the same identity bring the same bytes.
type identity struct {
	Bucket, Key string
	Pin         string // the version asked for, if any
	VersionID   string // as S3 answered
	ETag        string
	Size        int64
	Checksum    checksum
}

// look asks S3 for the object's identity. It answers false unless S3 confirms, by ETag and size, that it has what was notified;
// why it has not is for the request of the whole object to find out: the answer to a HEAD has no body to tell.
func (d *Downloader) look(ctx context.Context, dog *watchdog, obj Object) (identity, bool) {
	in := &s3.HeadObjectInput{Bucket: aws.String(obj.Bucket), Key: aws.String(obj.Key), ChecksumMode: types.ChecksumModeEnabled}
	in.VersionId, in.IfMatch = pin(obj)
	dog.listen()
	out, err := d.api.HeadObject(ctx, in)
	dog.pause()
	if err != nil {
		return identity{}, false
	}
	id := identity{
		Bucket: obj.Bucket, Key: obj.Key, Pin: obj.VersionID, VersionID: aws.ToString(out.VersionId),
		ETag: etag(out.ETag), Size: aws.ToInt64(out.ContentLength), Checksum: ofHead(out),
	}
	return id, id.ETag != "" && (obj.ETag == "" || id.ETag == etag(&obj.ETag)) && id.Size == obj.Size
}

// object is the identity as what to ask for. It is pinned in any case.
func (id identity) object() Object {
	return Object{Bucket: id.Bucket, Key: id.Key, VersionID: id.Pin, ETag: id.ETag, Size: id.Size}
}

// etag is the entity tag without its quotes.
func etag(tag *string) string { return strings.Trim(aws.ToString(tag), `"`) }
