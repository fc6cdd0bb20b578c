package emulator

import (
	"encoding/xml"
	"net/http"
	"slices"
)

type listVersionsResult struct {
	XMLName        xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListVersionsResult"`
	Name           string
	Prefix         string
	KeyMarker      string
	NextKeyMarker  string `xml:",omitempty"`
	MaxKeys        int
	EncodingType   string `xml:",omitempty"`
	IsTruncated    bool
	Versions       []versionEntry `xml:"Version"`
	DeleteMarkers  []versionEntry `xml:"DeleteMarker"`
	CommonPrefixes []commonPrefix
}

type versionEntry struct {
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified string
	ETag         string `xml:",omitempty"`
	Size         *int64 `xml:",omitempty"`
	StorageClass string `xml:",omitempty"`
	Owner        owner
}

// listObjectVersions pages by key: all versions of a key are on one page, which may be
// longer than asked for.
func (c *s3Call) listObjectVersions(w http.ResponseWriter, _ *http.Request) error {
	p, err := c.page()
	if err != nil {
		return err
	}
	p.after = c.query.Get("key-marker")
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		c.buckets.mu.Unlock()
		return err
	}
	result := listVersionsResult{
		Name: c.bucket, Prefix: p.text(p.prefix), KeyMarker: p.text(p.after), MaxKeys: p.limit,
		EncodingType: c.query.Get("encoding-type"),
	}
	var last string
	last, result.IsTruncated = p.walk(k.keys, func(key string) bool {
		result.add(p, key, k.objects[key])
		return true
	}, func(prefix string) {
		result.CommonPrefixes = append(result.CommonPrefixes, commonPrefix{p.text(prefix)})
	})
	c.buckets.mu.Unlock()
	if result.IsTruncated {
		result.NextKeyMarker = p.text(last)
	}
	c.answer(w, http.StatusOK, result)
	return nil
}

// add lists the versions of a key, the latest first.
func (l *listVersionsResult) add(p page, key string, all []*version) {
	for i, v := range slices.Backward(all) {
		e := versionEntry{
			Key: p.text(key), VersionID: v.id, IsLatest: i == len(all)-1,
			LastModified: timestamp(v.modified), Owner: theOwner,
		}
		if v.marker {
			l.DeleteMarkers = append(l.DeleteMarkers, e)
			continue
		}
		e.ETag, e.Size, e.StorageClass = quoted(v.etag), &v.size, "STANDARD"
		l.Versions = append(l.Versions, e)
	}
}
