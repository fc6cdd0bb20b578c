package pipeline

import (
	"context"
	"errors"
	"strings"
	"time"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// probeTimeout bounds the look at an object.
const probeTimeout = 10 * time.Second

// identify finds the object of an event. Some senders encode keys and some do not: of the
// two readings of a key, the right one exists with the event's eTag. An event with
// neither version nor eTag is about what the key holds now: otherwise every later object
// of the key would be the same image. While S3 does not answer, nothing is decided.
func identify(ctx context.Context, bucket *download.Bucket, prefix string, o queue.Object) (store.Object, error) {
	obj := store.Object{
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Sequencer: o.Sequencer, Size: o.Size,
	}
	ambiguous := o.AltKey != "" && strings.HasPrefix(o.AltKey, prefix)
	if !ambiguous && obj.Version() != "" {
		return obj, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, err := bucket.Head(ctx, o.Key)
	another := err == nil && o.ETag != "" && found.ETag != o.ETag
	if ambiguous && (another || errors.Is(err, download.ErrGone)) {
		other, e := bucket.Head(ctx, o.AltKey)
		if e == nil && (o.ETag == "" || other.ETag == o.ETag) {
			obj.Key, found, err = o.AltKey, other, nil
		} else if e != nil && !errors.Is(e, download.ErrGone) {
			err = e
		}
	}
	if err != nil && download.Scope(err) == download.AllObjects {
		return obj, err
	}
	if err == nil && obj.Version() == "" {
		obj.VersionID, obj.ETag, obj.Size = found.VersionID, found.ETag, found.Size
	}
	return obj, nil
}
