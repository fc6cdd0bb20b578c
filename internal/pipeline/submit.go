package pipeline

import (
	"context"
	"fmt"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// Submit puts the key's present object into the journal. Run takes it up when there is
// time. A known object stays the same image. If the image ended without a result, it may
// begin again.
func (s *Submitter) Submit(ctx context.Context, key string) (img store.Image, created bool, err error) {
	img, created, err = s.enqueue(ctx, key)
	if err != nil || created {
		return img, created, err
	}
	why := reopenReason(img, s.Rules)
	if why == "" {
		return img, false, nil
	}
	img, err = s.Store.Reopen(ctx, img.ID, store.StageDownload, why)
	return img, err == nil, err
}

// enqueue puts the key's present object into the journal, unless it is there.
func (s *Submitter) enqueue(ctx context.Context, key string) (img store.Image, created bool, err error) {
	if err := download.ValidateKey(key, s.Prefix); err != nil {
		return img, false, err
	}
	o, err := s.Bucket.Head(ctx, key)
	if err != nil {
		return img, false, fmt.Errorf("s3://%s/%s: %w", s.Name, key, err)
	}
	return s.Store.Enqueue(ctx,
		store.Object{Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Size: o.Size})
}

// Request is what became of an operator's request for an image.
type Request struct {
	Image   store.Image `json:"image"`         // as it is now
	Was     store.State `json:"was,omitempty"` // what it was before; empty for a new image
	Changed bool        `json:"changed"`       // it is taken up because of the request
}

// Resubmit is Submit by an operator, whose word is enough: see Retry.
func (s *Submitter) Resubmit(ctx context.Context, key string) (Request, error) {
	img, created, err := s.enqueue(ctx, key)
	if err != nil || created {
		return Request{Image: img, Changed: created}, err
	}
	return Retry(ctx, s.Store, img)
}

// Retry takes an image up by the word of an operator, whatever it is: a refused one is
// judged again, a removed one is made again, one that was given up is tried again, and a
// waiting one is taken up now. Nothing is done to an active image, nor to one that is
// being worked on.
func Retry(ctx context.Context, st *store.Store, img store.Image) (r Request, err error) {
	const why = "asked for by an operator"
	r = Request{Image: img, Was: img.State, Changed: true}
	switch img.State {
	case store.StateActive:
		r.Changed = false
	case store.StatePending:
		r.Image, r.Changed, err = st.Resume(ctx, img.ID, why)
	case store.StateRemoved:
		r.Image, err = st.Resubmit(ctx, img.ID)
	default:
		r.Image, err = st.Reopen(ctx, img.ID, store.StageDownload, why)
	}
	return r, err
}
