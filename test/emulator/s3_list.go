package emulator

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxKeys is how many entries a page of a listing has at most.
const maxKeys = 1000

type listResult struct {
	XMLName               xml.Name
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	MaxKeys               int
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []listEntry
	CommonPrefixes        []commonPrefix
	KeyCount              *int   `xml:",omitempty"` // this and the next three: version 2
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	Marker                string `xml:",omitempty"` // version 1
	NextMarker            string `xml:",omitempty"` // version 1
}

type listEntry struct {
	Key               string
	LastModified      string
	ETag              string
	Size              int64
	StorageClass      string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

type commonPrefix struct{ Prefix string }

// page is what a listing asks for.
type page struct {
	prefix, delimiter string
	after             string // list what comes after
	limit             int
	encode            bool // keys, as in a URL
}

func (c *s3Call) page() (page, error) {
	p := page{
		prefix: c.query.Get("prefix"), delimiter: c.query.Get("delimiter"), limit: maxKeys,
		encode: c.query.Get("encoding-type") == "url",
	}
	if text := c.query.Get("max-keys"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return p, errArgument.with("max-keys must be an integer of 0 or more")
		}
		p.limit = min(p.limit, n)
	}
	return p, nil
}

// text encodes a key for XML, which cannot hold every character.
func (p page) text(key string) string {
	if !p.encode {
		return key
	}
	return strings.ReplaceAll(encodeKey(key), "+", "%20")
}

// walk calls visit for each key of the page, and fold for each common prefix. It stops,
// and returns the last key or prefix of the page, where there is more than the limit.
func (p page) walk(keys []string, visit func(key string) bool, fold func(prefix string)) (last string, truncated bool) {
	i, _ := slices.BinarySearch(keys, max(p.prefix, p.after))
	n := 0
	for ; i < len(keys) && strings.HasPrefix(keys[i], p.prefix); i++ {
		key := keys[i]
		group := p.group(key)
		switch {
		case key <= p.after, group != "" && (group == last || group <= p.after):
			continue
		case n == p.limit:
			return last, n > 0
		case group != "":
			fold(group)
			last = group
		case !visit(key):
			continue
		default:
			last = key
		}
		n++
	}
	return last, false
}

// group is the common prefix that the key is folded into; empty where there is none.
func (p page) group(key string) string {
	if p.delimiter == "" {
		return ""
	}
	before, _, found := strings.Cut(key[len(p.prefix):], p.delimiter)
	if !found {
		return ""
	}
	return p.prefix + before + p.delimiter
}

// listObjects answers both versions of the listing.
func (c *s3Call) listObjects(w http.ResponseWriter, _ *http.Request) error {
	p, err := c.page()
	if err != nil {
		return err
	}
	v2 := c.query.Get("list-type") == "2"
	result := listResult{
		XMLName: xml.Name{Space: s3Namespace, Local: "ListBucketResult"}, Name: c.bucket,
		MaxKeys: p.limit, EncodingType: c.query.Get("encoding-type"),
	}
	if err := c.start(&p, &result, v2); err != nil {
		return err
	}
	last, err := c.list(p, &result)
	if err != nil {
		return err
	}
	result.Prefix, result.Delimiter = p.text(p.prefix), p.text(p.delimiter)
	n := len(result.Contents) + len(result.CommonPrefixes)
	switch {
	case v2:
		result.KeyCount = &n
		if result.IsTruncated {
			result.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
		}
	case result.IsTruncated && p.delimiter != "":
		result.NextMarker = p.text(last)
	}
	c.answer(w, http.StatusOK, result)
	return nil
}

// start finds where the page begins.
func (c *s3Call) start(p *page, result *listResult, v2 bool) error {
	if !v2 {
		p.after = c.query.Get("marker")
		result.Marker = p.text(p.after)
		return nil
	}
	p.after = c.query.Get("start-after")
	result.StartAfter = p.text(p.after)
	if token := c.query.Get("continuation-token"); token != "" {
		raw, err := base64.URLEncoding.DecodeString(token)
		if err != nil || !utf8.Valid(raw) { // a key is UTF-8, and the token was made here
			return errArgument.with("The continuation token provided is incorrect")
		}
		p.after, result.ContinuationToken = string(raw), token
	}
	return nil
}

func (c *s3Call) list(p page, result *listResult) (last string, err error) {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return "", err
	}
	visible := slices.DeleteFunc(slices.Clone(k.keys), func(key string) bool { return k.latest(key) == nil })
	visit := func(key string) bool {
		v := k.latest(key)
		result.Contents = append(result.Contents, listEntry{
			Key: p.text(key), LastModified: timestamp(v.modified), ETag: quoted(v.etag), Size: v.size,
			StorageClass:      "STANDARD",
			ChecksumAlgorithm: v.sum.alg.name, ChecksumType: v.sum.kind,
		})
		return true
	}
	last, result.IsTruncated = p.walk(visible, visit, func(prefix string) {
		result.CommonPrefixes = append(result.CommonPrefixes, commonPrefix{p.text(prefix)})
	})
	return last, nil
}
