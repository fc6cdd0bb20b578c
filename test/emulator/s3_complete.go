package emulator

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

type completeRequest struct {
	XMLName xml.Name        // none where there was no document
	Parts   []completedPart `xml:"Part"`
}

type completedPart struct {
	PartNumber int
	ETag       string
	checksumFields
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

// completeMultipartUpload makes an object of the parts that are named. The others are
// dropped.
func (c *s3Call) completeMultipartUpload(w http.ResponseWriter, r *http.Request) error {
	var in completeRequest
	if err := document(r, &in); err != nil {
		return err
	}
	u, v, err := c.assemble(in, r.Header.Get("X-Amz-Checksum-Type"))
	if err != nil {
		return err
	}
	if u.kind == fullObject && (u.declared || u.encryption.customer == "") { // S3 has no default for a customer's key
		if v.sum, err = v.content.sum(u.alg); err != nil {
			return err
		}
	}
	if err := u.compare(r, v); err != nil {
		return err
	}
	if err := c.finish(w, r, u, v); err != nil {
		return err
	}
	if u.encryption.customer == "" { // of a customer's key AWS says nothing here
		u.encryption.announce(w.Header())
	}
	c.answer(w, http.StatusOK, completeResult{
		Location: "http://" + r.Host + r.URL.EscapedPath(), Bucket: c.bucket, Key: c.key, ETag: quoted(v.etag),
		checksumFields: v.sum.fields(), ChecksumType: v.sum.kind,
	})
	return nil
}

// compare holds the size and the checksum of the whole, where the request has them,
// against the object. A checksum of another algorithm is wrong, and one of the whole
// needs the type beside it where the algorithm's own would be composite.
func (u *upload) compare(r *http.Request, v *version) error {
	if size := r.Header.Get("X-Amz-Mp-Object-Size"); size != "" && size != strconv.FormatInt(v.size, 10) {
		return errInvalidRequest.with(
			"The provided 'x-amz-mp-object-size' header value %s does not match what was computed: %d", size, v.size)
	}
	for _, a := range algorithms {
		want := r.Header.Get(a.header())
		if want == "" || !u.declared && a.name != u.alg.name {
			continue // where no algorithm was declared, AWS looks at no other than its default
		}
		same := want == v.sum.value || want+"-"+strconv.Itoa(len(v.parts)) == v.sum.value
		typed := u.kind == composite || u.alg.whole || r.Header.Get("X-Amz-Checksum-Type") != ""
		if a.name != u.alg.name || !same || !typed {
			return errBadDigest.with("The %s you specified did not match the calculated checksum.", u.alg.lower())
		}
	}
	return nil
}

// assemble checks the list of parts and makes a version of them, which is not in the
// bucket yet.
func (c *s3Call) assemble(in completeRequest, kind string) (*upload, *version, error) {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	_, u, err := c.upload()
	if err == nil {
		err = u.check(in, kind)
	}
	if err != nil {
		return nil, nil, err
	}
	v := &version{described: u.described}
	h := md5.New() //nolint:gosec // what ETags are made of
	var sums []checksum
	for _, named := range in.Parts {
		p := u.parts[named.PartNumber]
		h.Write(p.md5)
		sums = append(sums, p.sum)
		v.parts = append(v.parts, p)
		v.content = append(v.content, p.content...)
		v.size += p.size
	}
	v.etag = fmt.Sprintf("%x-%d", h.Sum(nil), len(v.parts))
	if u.kind == composite {
		v.sum = combine(u.alg, sums)
	}
	return u, v, nil
}

// check refuses a list that does not fit the parts that there are.
func (u *upload) check(in completeRequest, kind string) error {
	mode := u.kind
	if !u.declared {
		mode = "null"
	}
	if kind != "" && kind != mode {
		return errInvalidRequest.with(
			"The upload was created using the %s checksum mode. The complete request must use the same checksum mode.",
			mode)
	}
	switch {
	case in.XMLName.Local == "":
		return errInvalidRequest.with("You must specify at least one part")
	case len(in.Parts) == 0:
		return errMalformedXML
	}
	for i := range in.Parts[1:] {
		if in.Parts[i].PartNumber >= in.Parts[i+1].PartNumber {
			return errPartOrder
		}
	}
	for i, named := range in.Parts {
		p, ok := u.parts[named.PartNumber]
		if !ok || strings.Trim(named.ETag, `"`) != p.etag() {
			return errInvalidPart
		}
		if err := u.checkSum(named, p); err != nil {
			return err
		}
		if i < len(in.Parts)-1 && p.size < minPart {
			return errTooSmall
		}
	}
	return nil
}

// checkSum refuses a part that is named with a wrong checksum; with any, where no
// algorithm was declared; and without one, where the object's is made of the parts'.
func (u *upload) checkSum(named completedPart, p part) error {
	said := *named.of(u.alg.name)
	for _, a := range algorithms {
		switch value := *named.of(a.name); {
		case value == "":
		case !u.declared:
			return errInvalidPart
		case a.name != u.alg.name:
			return errBadDigest.with("The %s you specified for part %d did not match what we received.",
				a.lower(), named.PartNumber)
		}
	}
	switch {
	case said == "" && u.declared && u.kind == composite:
		return errInvalidRequest.with(
			"The upload was created using a %s checksum. The complete request must include the "+
				"checksum for each part. It was missing for part %d in the request.",
			u.alg.lower(), named.PartNumber)
	case said != "" && said != p.sum.value:
		return errInvalidPart
	}
	return nil
}

// finish ends the upload and puts the object in its place, once: a second call that raced
// finds no upload.
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
