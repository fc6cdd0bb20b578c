package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// eventMajor is the major version of the S3 form that is understood. AWS raises it for
// changes that break readers.
const eventMajor = "2"

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
		if skip, is := r.ignored(); is {
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

// ignored tells whether the record is none that creates an object. Stores that speak S3
// name themselves as the source ("minio:s3"), or nobody.
func (r s3Record) ignored() (Ignored, bool) {
	if r.EventSource != "" && !strings.HasSuffix(r.EventSource, ":s3") {
		return Ignored{Reason: ReasonNotS3, Detail: r.EventSource}, true
	}
	if !strings.HasPrefix(strings.TrimPrefix(r.EventName, "s3:"), "ObjectCreated:") {
		return Ignored{Reason: ReasonNotCreated, Detail: r.EventName}, true
	}
	return Ignored{}, false
}

// object decodes the key, which S3 form-encodes: "+" is a space. A key that does not
// decode is an error, never taken as it is.
func (r s3Record) object() (Object, error) {
	if major, _, _ := strings.Cut(r.EventVersion, "."); major != "" && major != eventMajor {
		return Object{}, fmt.Errorf("%w: event version %s, understood is %s.x",
			ErrMalformed, r.EventVersion, eventMajor)
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
	return o, o.complete()
}

// detail is what EventBridge puts around one object.
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

// fromEventBridge reads an event of EventBridge. Its key is not encoded as AWS sends it,
// but form-encoded as LocalStack does, and nothing in the event tells which: the decoded
// form is the other key to try when there is no object under the first, and the ETag
// tells whether it is the right one.
func fromEventBridge(e envelope) (Notification, error) {
	switch {
	case e.Source != "aws.s3":
		return ignored(ReasonNotS3, e.Source), nil
	case e.DetailType != "Object Created":
		return ignored(ReasonNotCreated, e.DetailType), nil
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
	if err := o.complete(); err != nil {
		return Notification{}, err
	}
	if other, err := url.QueryUnescape(o.Key); err == nil && other != o.Key {
		o.AltKey = other
	}
	return Notification{Objects: []Object{o}}, nil
}

// complete tells whether the object has what it cannot be fetched without.
func (o Object) complete() error {
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
