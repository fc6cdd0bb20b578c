package emulator

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
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
	id, key string
	header  http.Header
	alg     algorithm
	kind    string // fullObject or composite
	began   time.Time
	parts   map[int]part
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
	alg, _, err := requested(r)
	if err != nil {
		return err
	}
	u := &upload{id: newToken(), key: c.key, header: keep(r), alg: alg, kind: composite, began: c.buckets.clock.Now(), parts: map[int]part{}}
	if kind := r.Header.Get("X-Amz-Checksum-Type"); kind == fullObject || kind == "" && alg.whole {
		u.kind = fullObject
	}
	if u.kind == fullObject && strings.HasPrefix(alg.name, "SHA") || u.kind == composite && alg.whole {
		return errInvalidRequest.with("The %s checksum type cannot be used with the %s checksum algorithm.", u.kind, strings.ToLower(alg.name))
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
	if name := r.Header.Get("X-Amz-Checksum-Algorithm"); name != "" {
		w.Header().Set("X-Amz-Checksum-Algorithm", alg.name)
		w.Header().Set("X-Amz-Checksum-Type", u.kind)
	}
	c.answer(w, http.StatusOK, initiateResult{Bucket: c.bucket, Key: c.key, UploadID: u.id})
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

// addPart puts a part in its place, instead of the one that was there; it removes it where the upload is gone.
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

// openPart checks number and upload before a body is read, and returns the upload's checksum algorithm.
func (c *s3Call) openPart() (algorithm, error) {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxParts {
		return algorithm{}, errArgument.with("Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, u, err := c.upload()
	if err != nil {
		return algorithm{}, err
	}
	return u.alg, nil
}

func (c *s3Call) uploadPart(w http.ResponseWriter, r *http.Request) error {
	alg, err := c.openPart()
	if err != nil {
		return err
	}
	got, err := c.buckets.receive(r)
	if err != nil {
		return err
	}
	p := part{content: body{got.segment}, size: got.size, md5: got.md5, sum: got.sum, modified: c.buckets.clock.Now()}
	if p.sum.alg.name != alg.name {
		if p.sum, err = p.content.sum(alg); err != nil {
			return err
		}
	}
	if err := c.addPart(p); err != nil {
		return err
	}
	w.Header().Set("Etag", quoted(p.etag()))
	w.Header().Set(p.sum.alg.header(), p.sum.value)
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
	alg, err := c.openPart()
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
	p, err := c.buckets.copyPart(in, alg)
	if err != nil {
		return err
	}
	if err := c.addPart(p); err != nil {
		return err
	}
	c.answer(w, http.StatusOK, copyPartResult{LastModified: timestamp(p.modified), ETag: quoted(p.etag()), checksumFields: p.sum.fields()})
	return nil
}

type completeRequest struct {
	Parts []struct {
		PartNumber int
		ETag       string
		checksumFields
	} `xml:"Part"`
}

type completeResult struct {
	XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
	Location     string
	Bucket       string
	Key          string
	ETag         string
	ChecksumType string `xml:",omitempty"`
	checksumFields
}

// completeMultipartUpload makes an object of the parts that are named. The others are dropped.
func (c *s3Call) completeMultipartUpload(w http.ResponseWriter, r *http.Request) error {
	var in completeRequest
	if err := document(r, &in); err != nil {
		return err
	}
	u, v, err := c.assemble(in)
	if err != nil {
		return err
	}
	if u.kind == fullObject {
		if v.sum, err = v.content.sum(u.alg); err != nil {
			return err
		}
	}
	if want := r.Header.Get(u.alg.header()); want != "" && want != v.sum.value && want+"-"+strconv.Itoa(len(v.parts)) != v.sum.value {
		return errBadDigest.with("The %s you specified did not match the calculated checksum.", u.alg.name)
	}
	if err := c.finish(w, r, u, v); err != nil {
		return err
	}
	c.answer(w, http.StatusOK, completeResult{
		Location: "http://" + r.Host + r.URL.EscapedPath(), Bucket: c.bucket, Key: c.key, ETag: quoted(v.etag),
		checksumFields: v.sum.fields(), ChecksumType: v.sum.kind,
	})
	return nil
}

// assemble checks the list of parts and makes a version of them, which is not in the bucket yet.
func (c *s3Call) assemble(in completeRequest) (*upload, *version, error) {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, u, err := c.upload()
	if err != nil {
		return nil, nil, err
	}
	if len(in.Parts) == 0 {
		return nil, nil, errMalformedXML
	}
	for i := range in.Parts[1:] {
		if in.Parts[i].PartNumber >= in.Parts[i+1].PartNumber {
			return nil, nil, errPartOrder
		}
	}
	v := &version{header: u.header}
	h := md5.New() //nolint:gosec // what ETags are made of
	var sums []checksum
	for i, named := range in.Parts {
		p, ok := u.parts[named.PartNumber]
		said := named.of(u.alg.name)
		switch {
		case !ok || strings.Trim(named.ETag, `"`) != p.etag() || *said != "" && *said != p.sum.value:
			return nil, nil, errInvalidPart
		case i < len(in.Parts)-1 && p.size < minPart:
			return nil, nil, errTooSmall
		}
		h.Write(p.md5)
		sums = append(sums, p.sum)
		v.parts = append(v.parts, p)
		v.content = append(v.content, p.content...)
		v.size += p.size
	}
	v.etag = fmt.Sprintf("%x-%d", h.Sum(nil), len(v.parts))
	v.sum = combine(u.alg, sums)
	return u, v, nil
}

// finish ends the upload and puts the object in its place, once: a second call that raced finds no upload.
func (c *s3Call) finish(w http.ResponseWriter, r *http.Request, u *upload, v *version) error {
	b := c.buckets
	b.mu.Lock()
	defer b.mu.Unlock()
	k, again, err := c.upload()
	if err != nil {
		return err
	}
	if again != u {
		return errNoUpload
	}
	if err := writable(r, k.latest(c.key)); err != nil {
		return err
	}
	delete(k.uploads, u.id)
	for _, p := range u.parts {
		if !slices.ContainsFunc(v.parts, func(used part) bool { return used.content[0] == p.content[0] }) {
			b.spool.remove(p.content)
		}
	}
	b.put(k, c.key, v)
	announce(w.Header(), k.shownID(v))
	b.notify(k, c.event(w, r, k, v, "ObjectCreated:CompleteMultipartUpload"))
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
