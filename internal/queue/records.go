package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// supportedMajor is the only supported major version of the S3 form. AWS raises it for
// changes incompatible with older readers.
const supportedMajor = "2"

// s3Record is one of the Records of S3's own form. Only bucket and key are required.
type s3Record struct {
	EventVersion string `json:"eventVersion"`
	EventSource  string `json:"eventSource"`
	EventName    string `json:"eventName"`
	S3           struct {
		Bucket struct {
			Name string `json:"name"`
		} `json:"bucket"`
		Object struct {
			Key       string `json:"key"`
			Size      int64  `json:"size"`
			ETag      string `json:"eTag"`
			VersionID string `json:"versionId"`
			Sequencer string `json:"sequencer"`
		} `json:"object"`
	} `json:"s3"`
}

// fromS3 reads the records one by one: a broken one does not spoil the others.
func fromS3(records []json.RawMessage) (Notification, error) {
	var n Notification
	for i, raw := range records {
		var r s3Record
		if err := json.Unmarshal(raw, &r); err != nil {
			n.Broken = append(n.Broken, fmt.Errorf("record %d: %w: %w", i, ErrMalformed, err))
			continue
		}
		if skip, is := r.ignore(); is {
			n.Ignored = append(n.Ignored, skip)
			continue
		}
		o, err := r.object()
		if err != nil {
			n.Broken = append(n.Broken, fmt.Errorf("record %d: %w", i, err))
			continue
		}
		n.Objects = append(n.Objects, o)
	}
	if len(n.Broken) == len(records) {
		return Notification{}, errors.Join(n.Broken...)
	}
	return n, nil
}

// ignore reports whether the record is about anything but the creation of an object.
// S3-compatible stores name themselves as the source ("minio:s3"), or leave it empty.
func (r s3Record) ignore() (Ignored, bool) {
	if r.EventSource != "" && !strings.HasSuffix(r.EventSource, ":s3") {
		return Ignored{Reason: ReasonNotS3, Detail: r.EventSource}, true
	}
	if !strings.HasPrefix(strings.TrimPrefix(r.EventName, "s3:"), "ObjectCreated:") {
		return Ignored{Reason: ReasonNotCreated, Detail: r.EventName}, true
	}
	return Ignored{}, false
}

// object decodes the key. S3 form-encodes it: "+" is a space. A key with a bad encoding
// is an error; it is never used undecoded.
func (r s3Record) object() (Object, error) {
	if major, _, _ := strings.Cut(r.EventVersion, "."); major != "" && major != supportedMajor {
		return Object{}, fmt.Errorf("%w: event version %s is not %s.x",
			ErrMalformed, r.EventVersion, supportedMajor)
	}
	key, err := url.QueryUnescape(r.S3.Object.Key)
	if err != nil {
		return Object{}, fmt.Errorf("%w: key %q: %w", ErrMalformed, r.S3.Object.Key, err)
	}
	o := Object{
		Bucket:    r.S3.Bucket.Name,
		Key:       key,
		VersionID: r.S3.Object.VersionID,
		ETag:      strings.Trim(r.S3.Object.ETag, `"`),
		Sequencer: r.S3.Object.Sequencer,
		Size:      r.S3.Object.Size,
	}
	return o, o.checkComplete()
}

// detail is the part of an EventBridge event about one object.
type detail struct {
	Bucket struct {
		Name string `json:"name"`
	} `json:"bucket"`
	Object struct {
		Key       string `json:"key"`
		Size      int64  `json:"size"`
		ETag      string `json:"etag"`
		VersionID string `json:"version-id"`
		Sequencer string `json:"sequencer"`
	} `json:"object"`
}

// fromEventBridge reads an event of EventBridge. AWS sends its key as it is, LocalStack
// form-encoded, and the event does not say which. So the decoded form is a second key to
// try if no object exists under the first; its ETag confirms it.
func fromEventBridge(e envelope) (Notification, error) {
	switch {
	case e.Source != "aws.s3":
		return ignoring(ReasonNotS3, e.Source), nil
	case e.DetailType != "Object Created":
		return ignoring(ReasonNotCreated, e.DetailType), nil
	}
	var d detail
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return Notification{}, fmt.Errorf("%w: detail: %w", ErrMalformed, err)
	}
	o := Object{
		Bucket:    d.Bucket.Name,
		Key:       d.Object.Key,
		VersionID: d.Object.VersionID,
		ETag:      strings.Trim(d.Object.ETag, `"`),
		Sequencer: d.Object.Sequencer,
		Size:      d.Object.Size,
	}
	if err := o.checkComplete(); err != nil {
		return Notification{}, err
	}
	if other, err := url.QueryUnescape(o.Key); err == nil && other != o.Key {
		o.AltKey = other
	}
	return Notification{Objects: []Object{o}}, nil
}

// checkComplete checks that the object has a bucket, a key and a possible size.
func (o Object) checkComplete() error {
	switch {
	case o.Bucket == "":
		return fmt.Errorf("%w: no bucket name", ErrMalformed)
	case o.Key == "":
		return fmt.Errorf("%w: no object key", ErrMalformed)
	case o.Size < 0:
		return fmt.Errorf("%w: size %d", ErrMalformed, o.Size)
	}
	return nil
}
