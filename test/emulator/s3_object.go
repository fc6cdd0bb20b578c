package emulator

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// nullVersion is the id of what a bucket without versioning holds.
const nullVersion = "null"

// described is what an upload says of its object besides the content.
type described struct {
	header     http.Header // comes back with it
	encryption encryption
	tags       []tag
}

// describedBy reads it from a request.
func describedBy(r *http.Request) (described, error) {
	encryption, err := encryptionOf(r.Header)
	if err != nil {
		return described{}, err
	}
	tags, err := tagsIn(r)
	return described{keep(r), encryption, tags}, err
}

// version is what a key holds, or held. But for its tags it is never changed once it is
// in its bucket.
type version struct {
	described
	id       string // nullVersion where the bucket has no versioning
	marker   bool   // a delete marker: it has no content
	content  body
	size     int64
	etag     string // without quotes
	sum      checksum
	parts    []part // as uploaded; empty unless in parts
	modified time.Time
}

// kept are the headers of an upload that come back with the object, besides X-Amz-Meta-*.
var kept = []string{
	"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control",
	"Expires", "X-Amz-Website-Redirect-Location",
}

// keep takes the headers to keep out of a request. The framing of the upload is none of
// the object's encoding.
func keep(r *http.Request) http.Header {
	h := http.Header{}
	for key, values := range r.Header {
		if slices.Contains(kept, key) || strings.HasPrefix(key, "X-Amz-Meta-") {
			h[key] = slices.Clone(values)
		}
	}
	encoding := strings.Split(h.Get("Content-Encoding"), ",")
	encoding = slices.DeleteFunc(encoding, func(e string) bool { return strings.TrimSpace(e) == "aws-chunked" })
	h.Del("Content-Encoding")
	if e := strings.Join(encoding, ","); e != "" {
		h.Set("Content-Encoding", e)
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "binary/octet-stream")
	}
	return h
}

// latest is what the key holds; nil where nothing, or a delete marker.
func (k *bucket) latest(key string) *version {
	all := k.objects[key]
	if len(all) == 0 || all[len(all)-1].marker {
		return nil
	}
	return all[len(all)-1]
}

// lookup finds a version by its id, or the latest where the id is empty. The errors carry
// the headers that tell of delete markers.
func (k *bucket) lookup(key, id string) (*version, error) {
	all := k.objects[key]
	if id != "" {
		i := slices.IndexFunc(all, func(v *version) bool { return v.id == id })
		switch {
		case i < 0:
			return nil, errNoVersion
		case all[i].marker:
			return nil, errMethod.withHeader("X-Amz-Delete-Marker", "true").withHeader("X-Amz-Version-Id", id).
				withHeader("Last-Modified", all[i].modified.UTC().Format(http.TimeFormat))
		}
		return all[i], nil
	}
	switch {
	case len(all) == 0:
		return nil, errNoKey
	case all[len(all)-1].marker:
		return nil, errNoKey.withHeader("X-Amz-Delete-Marker", "true").
			withHeader("X-Amz-Version-Id", all[len(all)-1].id)
	}
	return all[len(all)-1], nil
}

// put makes a version the latest of its key. Without versioning, what was there before is
// gone.
func (b *buckets) put(k *bucket, key string, v *version) {
	v.id = nullVersion
	if k.versioning == "Enabled" {
		v.id = newToken()
	}
	v.modified = b.clock.Now()
	i, found := slices.BinarySearch(k.keys, key)
	if !found {
		k.keys = slices.Insert(k.keys, i, key)
	}
	if v.id == nullVersion {
		b.dropVersion(k, key, nullVersion)
	}
	k.objects[key] = append(k.objects[key], v)
}

// dropVersion takes a version away, and its files; nil where there is none.
func (b *buckets) dropVersion(k *bucket, key, id string) *version {
	i := slices.IndexFunc(k.objects[key], func(v *version) bool { return v.id == id })
	if i < 0 {
		return nil
	}
	v := k.objects[key][i]
	b.spool.remove(v.content)
	k.objects[key] = slices.Delete(k.objects[key], i, i+1)
	return v
}

// tidy forgets a key that has no version any more.
func (k *bucket) tidy(key string) {
	if len(k.objects[key]) > 0 {
		return
	}
	delete(k.objects, key)
	if i, found := slices.BinarySearch(k.keys, key); found {
		k.keys = slices.Delete(k.keys, i, i+1)
	}
}

// shownID is the version id that answers and events carry: none where the bucket never
// had versioning.
func (k *bucket) shownID(v *version) string {
	if k.versioning == "" {
		return ""
	}
	return v.id
}

func quoted(etag string) string { return `"` + etag + `"` }

// announce puts the version id into an answer's header.
func announce(h http.Header, id string) {
	if id != "" {
		h.Set("X-Amz-Version-Id", id)
	}
}

// putObject stores an object.
func (c *s3Call) putObject(w http.ResponseWriter, r *http.Request) error {
	if err := c.there(); err != nil {
		return err
	}
	said, err := describedBy(r)
	if err != nil {
		return err
	}
	got, err := c.buckets.receive(r)
	if err != nil {
		return err
	}
	v := &version{
		described: said, content: body{got.segment}, size: got.size,
		etag: hex.EncodeToString(said.encryption.digest(got.md5)), sum: got.sum,
	}
	if err := c.commit(w, r, v, "ObjectCreated:Put"); err != nil {
		return err
	}
	w.Header().Set("Etag", quoted(v.etag))
	v.sum.announce(w.Header())
	v.encryption.announce(w.Header())
	w.WriteHeader(http.StatusOK)
	return nil
}

// there refuses early what concerns a bucket that does not exist.
func (c *s3Call) there() error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, err := c.buckets.find(c.bucket)
	return err
}

// commit makes a version the key's latest, if the request's conditions hold, and
// notifies. It removes the content otherwise.
func (c *s3Call) commit(w http.ResponseWriter, r *http.Request, v *version, name string) error {
	b := c.buckets
	b.mu.Lock()
	defer b.mu.Unlock()
	k, err := b.find(c.bucket)
	if err == nil {
		err = writable(r, k.latest(c.key))
	}
	if err != nil {
		b.spool.remove(v.content)
		return err
	}
	b.put(k, c.key, v)
	announce(w.Header(), k.shownID(v))
	b.notify(k, c.event(w, r, k, v, name))
	return nil
}

// writable checks the conditions of a write: there must be nothing (If-None-Match: *), or
// a certain object (If-Match).
func writable(r *http.Request, now *version) error {
	if r.Header.Get("If-None-Match") == "*" && now != nil {
		return errPrecondition
	}
	want := r.Header.Get("If-Match")
	switch {
	case want != "" && now == nil:
		return errNoKey
	case want != "" && !matches(want, now.etag):
		return errPrecondition
	}
	return nil
}

// event is what there is to say about a change of the call's key.
func (c *s3Call) event(w http.ResponseWriter, r *http.Request, k *bucket, v *version, name string) event {
	address, _, _ := strings.Cut(r.RemoteAddr, ":")
	return event{
		name: name, bucket: k.name, region: k.region, key: c.key, size: v.size, etag: v.etag, version: k.shownID(v),
		sequencer: c.buckets.next(), when: c.buckets.clock.Now(), requestID: w.Header().Get("X-Amz-Request-Id"),
		address: address,
	}
}
