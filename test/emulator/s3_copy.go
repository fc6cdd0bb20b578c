package emulator

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// copyObject stores an object's content under another key, or the same.
func (c *s3Call) copyObject(w http.ResponseWriter, r *http.Request) error {
	said, err := describedBy(r)
	if err != nil {
		return err
	}
	source, content, err := c.source(r)
	if err != nil {
		return err
	}
	if r.Header.Get("X-Amz-Metadata-Directive") != "REPLACE" {
		said.header = source.header
	}
	if r.Header.Get("X-Amz-Tagging-Directive") != "REPLACE" {
		said.tags = source.tags
	}
	v := &version{described: said, content: content, size: source.size, etag: source.etag, sum: source.sum}
	if len(source.parts) > 0 || said.encryption != source.encryption { // its digests are of its own then
		if err := c.redigest(v); err != nil {
			c.buckets.spool.remove(content)
			return err
		}
	}
	if err := c.commit(w, r, v, "ObjectCreated:Copy"); err != nil {
		return err
	}
	v.encryption.announce(w.Header())
	c.answer(w, http.StatusOK,
		copyResult{
			LastModified: timestamp(v.modified), ETag: quoted(v.etag), checksumFields: v.sum.fields(),
			ChecksumType: v.sum.kind,
		})
	return nil
}

type copyResult struct {
	XMLName      xml.Name `xml:"CopyObjectResult"`
	LastModified string
	ETag         string
	ChecksumType string `xml:",omitempty"`
	checksumFields
}

// redigest computes ETag and checksum again, of the whole content.
func (c *s3Call) redigest(v *version) error {
	etag, err := v.content.sum(md5Algorithm)
	if err != nil {
		return err
	}
	raw, _ := base64.StdEncoding.DecodeString(etag.value) // sum encoded it
	v.etag = hex.EncodeToString(v.encryption.digest(raw))
	if v.sum.value != "" {
		v.sum, err = v.content.sum(v.sum.alg)
	}
	return err
}

// source finds what is to be copied, if the request's conditions on it hold, and gives
// its content a second set of names.
func (c *s3Call) source(r *http.Request) (*version, body, error) {
	from, key, id, err := copySource(r)
	if err != nil {
		return nil, nil, err
	}
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(from)
	if err != nil {
		return nil, nil, err
	}
	v, err := k.lookup(key, id)
	if err != nil {
		return nil, nil, err
	}
	if err := keyIn(r.Header, copySourcePrefix).opens(v.encryption); err != nil {
		return nil, nil, err
	}
	conditions := &http.Request{Header: http.Header{}}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if value := r.Header.Get("X-Amz-Copy-Source-" + name); value != "" {
			conditions.Header.Set(name, value)
		}
	}
	if err := readable(conditions, v); err != nil {
		return nil, nil, errors.Join(errPrecondition, err)
	}
	content, err := c.buckets.spool.link(v.content)
	now := *v // its tags may change when the mutex is let go of
	return &now, content, err
}

// copySource is the bucket, key and version that a copy names.
func copySource(r *http.Request) (bucket, key, id string, err error) {
	source, query, _ := strings.Cut(r.Header.Get("X-Amz-Copy-Source"), "?")
	path, err := url.PathUnescape(source)
	if err != nil {
		return "", "", "", errArgument.with("Copy Source must be URL encoded")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", "", "", errArgument.with("Copy Source must be URL encoded")
	}
	bucket, key, found := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !found || key == "" {
		return "", "", "", errArgument.with(
			"Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	return bucket, key, values.Get("versionId"), nil
}
