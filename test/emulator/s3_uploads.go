package emulator

import (
	"cmp"
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

type listPartsResult struct {
	XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	PartNumberMarker     int
	NextPartNumberMarker int
	MaxParts             int
	IsTruncated          bool
	Parts                []partEntry `xml:"Part"`
	uploadChecksum
}

// uploadChecksum is how an upload's checksum is taken; none in the null checksum mode.
type uploadChecksum struct {
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

func (u *upload) checksum() uploadChecksum {
	if !u.declared {
		return uploadChecksum{}
	}
	return uploadChecksum{u.alg.name, u.kind}
}

type partEntry struct {
	PartNumber   int
	LastModified string
	ETag         string
	Size         int64
	checksumFields
}

func (c *s3Call) listParts(w http.ResponseWriter, _ *http.Request) error {
	limit, after := maxKeys, 0
	if n, err := strconv.Atoi(c.query.Get("max-parts")); err == nil && n > 0 {
		limit = min(limit, n)
	}
	if n, err := strconv.Atoi(c.query.Get("part-number-marker")); err == nil {
		after = n
	}
	c.buckets.mu.Lock()
	_, u, err := c.upload()
	if err != nil {
		c.buckets.mu.Unlock()
		return err
	}
	result := listPartsResult{
		Bucket: c.bucket, Key: c.key, UploadID: u.id, PartNumberMarker: after, MaxParts: limit,
		uploadChecksum: u.checksum(),
	}
	for _, number := range slices.Sorted(maps.Keys(u.parts)) {
		switch {
		case number <= after:
		case len(result.Parts) == limit:
			result.IsTruncated = true
		default:
			p := u.parts[number]
			result.Parts = append(result.Parts,
				partEntry{number, timestamp(p.modified), quoted(p.etag()), p.size, u.shown(p)})
			result.NextPartNumberMarker = number
		}
	}
	c.buckets.mu.Unlock()
	c.answer(w, http.StatusOK, result)
	return nil
}

type listUploadsResult struct {
	XMLName     xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
	Bucket      string
	Prefix      string
	MaxUploads  int
	IsTruncated bool
	Uploads     []uploadEntry `xml:"Upload"`
}

type uploadEntry struct {
	Key       string
	UploadID  string `xml:"UploadId"`
	Initiated string
	uploadChecksum
}

// listMultipartUploads answers all of them on one page.
func (c *s3Call) listMultipartUploads(w http.ResponseWriter, _ *http.Request) error {
	result := listUploadsResult{Bucket: c.bucket, Prefix: c.query.Get("prefix"), MaxUploads: maxKeys}
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		c.buckets.mu.Unlock()
		return err
	}
	for _, u := range k.uploads {
		if strings.HasPrefix(u.key, result.Prefix) {
			result.Uploads = append(result.Uploads, uploadEntry{u.key, u.id, timestamp(u.began), u.checksum()})
		}
	}
	c.buckets.mu.Unlock()
	slices.SortFunc(result.Uploads, func(x, y uploadEntry) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.UploadID, y.UploadID))
	})
	c.answer(w, http.StatusOK, result)
	return nil
}
