package emulator

import (
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxParts = 10_000
	minPart  = 5 << 20 // bytes; the last may be smaller
)

// upload is an object that comes in parts.
type upload struct {
	described
	id, key  string
	alg      algorithm
	kind     string // fullObject or composite
	declared bool   // when it was begun. AWS calls an upload where alg was not the "null checksum mode"
	began    time.Time
	parts    map[int]part
}

// part is one of them.
type part struct {
	content  body
	size     int64
	md5      []byte
	sum      checksum
	modified time.Time
}

func (p part) etag() string { return hex.EncodeToString(p.md5) }

// shown is the checksum of a part in the documents: none in the null checksum mode.
func (u *upload) shown(p part) checksumFields {
	if !u.declared {
		return checksumFields{}
	}
	return p.sum.fields()
}

// drop removes an upload's files. The mutex is held.
func (b *buckets) drop(u *upload) {
	for _, p := range u.parts {
		b.spool.remove(p.content)
	}
}

type initiateResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

func (c *s3Call) createMultipartUpload(w http.ResponseWriter, r *http.Request) error {
	said, err := describedBy(r)
	if err != nil {
		return err
	}
	u := &upload{described: said, id: newToken(), key: c.key, began: c.buckets.clock.Now(), parts: map[int]part{}}
	if err := u.declare(r.Header.Get("X-Amz-Checksum-Algorithm"), r.Header.Get("X-Amz-Checksum-Type")); err != nil {
		return err
	}
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	if err == nil {
		k.uploads[u.id] = u
	}
	c.buckets.mu.Unlock()
	if err != nil {
		return err
	}
	if u.declared {
		w.Header().Set("X-Amz-Checksum-Algorithm", u.alg.name)
		w.Header().Set("X-Amz-Checksum-Type", u.kind)
	}
	u.encryption.announce(w.Header())
	c.answer(w, http.StatusOK, initiateResult{Bucket: c.bucket, Key: c.key, UploadID: u.id})
	return nil
}

// declare says how the checksum of the object is to be taken. Where no algorithm is
// named, S3 takes its default of the whole, whatever checksums the parts come with.
func (u *upload) declare(name, kind string) error {
	u.alg, u.kind = byDefault, fullObject
	if name == "" {
		if kind != "" {
			return errInvalidRequest.with(
				"The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return nil
	}
	if u.alg, u.declared = findAlgorithm(name); !u.declared {
		return errInvalidRequest.with("Checksum algorithm provided is unsupported: %s", name)
	}
	u.kind = composite
	if kind == fullObject || kind == "" && u.alg.whole {
		u.kind = fullObject
	}
	if u.kind == fullObject && strings.HasPrefix(u.alg.name, "SHA") || u.kind == composite && u.alg.whole {
		return errInvalidRequest.with("The %s checksum type cannot be used with the %s checksum algorithm.",
			u.kind, u.alg.lower())
	}
	return nil
}

// upload finds the upload that the call names. The mutex is held.
func (c *s3Call) upload() (*bucket, *upload, error) {
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return nil, nil, err
	}
	u := k.uploads[c.query.Get("uploadId")]
	if u == nil || u.key != c.key {
		return nil, nil, errNoUpload
	}
	return k, u, nil
}

// addPart puts a part in its place, instead of the one that was there; it removes it
// where the upload is gone.
func (c *s3Call) addPart(p part) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, u, err := c.upload()
	if err != nil {
		c.buckets.spool.remove(p.content)
		return err
	}
	number, _ := strconv.Atoi(c.query.Get("partNumber")) // openPart looked
	c.buckets.spool.remove(u.parts[number].content)
	u.parts[number] = p
	return nil
}

// openPart checks number and upload before a body is read. Of the upload only what
// it was begun with may be read: the mutex is not held any more.
func (c *s3Call) openPart() (*upload, error) {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxParts {
		return nil, errArgument.with("Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, u, err := c.upload()
	return u, err
}

// takes refuses a part whose checksum is not of the upload's algorithm, or that has
// none where the object's checksum is to be made of those of the parts.
func (u *upload) takes(r *http.Request) (brings bool, err error) {
	alg, brings, err := requested(r)
	actual := "null"
	if brings {
		actual = alg.lower()
	}
	if err == nil && u.declared && (brings && alg.name != u.alg.name || !brings && u.kind == composite) {
		err = errInvalidRequest.with(
			"Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", u.alg.lower(),
			actual)
	}
	return brings, err
}

// uploadPart stores a part. The answer has the checksum that the part came with, of
// whatever algorithm, or the one that the upload asks for.
func (c *s3Call) uploadPart(w http.ResponseWriter, r *http.Request) error {
	u, err := c.openPart()
	if err != nil {
		return err
	}
	if err := u.encryption.takes(keyIn(r.Header, sseHeader)); err != nil {
		return err
	}
	brings, err := u.takes(r)
	if err != nil {
		return err
	}
	got, err := c.buckets.receive(r)
	if err != nil {
		return err
	}
	p := part{
		content: body{got.segment}, size: got.size, md5: u.encryption.digest(got.md5), sum: got.sum,
		modified: c.buckets.clock.Now(),
	}
	if u.declared && !brings {
		if p.sum, err = p.content.sum(u.alg); err != nil {
			return err
		}
	}
	if err := c.addPart(p); err != nil {
		return err
	}
	w.Header().Set("Etag", quoted(p.etag()))
	u.encryption.announce(w.Header())
	if u.declared || brings {
		w.Header().Set(p.sum.alg.header(), p.sum.value)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

type copyPartResult struct {
	XMLName      xml.Name `xml:"CopyPartResult"`
	LastModified string
	ETag         string
	checksumFields
}

// uploadPartCopy makes a part of another object's content, or a range of it.
func (c *s3Call) uploadPartCopy(w http.ResponseWriter, r *http.Request) error {
	u, err := c.openPart()
	if err == nil {
		err = u.encryption.takes(keyIn(r.Header, sseHeader))
	}
	if err != nil {
		return err
	}
	source, content, err := c.source(r)
	if err != nil {
		return err
	}
	defer c.buckets.spool.remove(content)
	from, n, ranged := parseRange(r.Header.Get("X-Amz-Copy-Source-Range"), source.size)
	if !ranged {
		from, n = 0, source.size
	} else if n <= 0 {
		return errRange
	}
	in, err := content.open(from, n)
	if err != nil {
		return err
	}
	defer in.Close()
	p, err := c.buckets.copyPart(in, u.alg)
	if err != nil {
		return err
	}
	p.md5 = u.encryption.digest(p.md5)
	if err := c.addPart(p); err != nil {
		return err
	}
	u.encryption.announce(w.Header())
	c.answer(w, http.StatusOK,
		copyPartResult{LastModified: timestamp(p.modified), ETag: quoted(p.etag()), checksumFields: u.shown(p)})
	return nil
}

func (c *s3Call) abortMultipartUpload(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, u, err := c.upload()
	if err != nil {
		return err
	}
	c.buckets.drop(u)
	delete(k.uploads, u.id)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
