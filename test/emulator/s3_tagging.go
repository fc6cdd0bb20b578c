package emulator

import (
	"encoding/xml"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const maxTags = 10 // of an object

type tagging struct {
	XMLName xml.Name `xml:"Tagging"`
	TagSet  struct {
		Tags []tag `xml:"Tag"`
	}
}

// tag is one of an object's. Both must be there, and the value may be empty.
type tag struct {
	Key, Value *string
}

// tagged counts the tags in an answer's header.
func tagged(h http.Header, tags []tag) {
	if len(tags) > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(len(tags)))
	}
}

// tagsIn reads the tags that an upload comes with, in the form of a URL's query.
func tagsIn(r *http.Request) ([]tag, error) {
	values, err := url.ParseQuery(r.Header.Get("X-Amz-Tagging"))
	var tags []tag
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[key] {
			tags = append(tags, tag{&key, &value})
		}
	}
	if err != nil || checkTags(tags) != nil {
		return nil, errArgument.with(
			"The header 'x-amz-tagging' shall be encoded as UTF-8 then " +
				"URLEncoded URL query parameters without tag name duplicates.")
	}
	return tags, nil
}

var validTag = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func checkTags(tags []tag) error {
	seen := map[string]bool{}
	for _, t := range tags {
		switch {
		case t.Key == nil || t.Value == nil:
			return errMalformedXML
		case len(*t.Key) == 0 || len(*t.Key) > 128 || !validTag.MatchString(*t.Key):
			return errTag.with("The TagKey you have provided is invalid")
		case len(*t.Value) > 256 || !validTag.MatchString(*t.Value):
			return errTag.with("The TagValue you have provided is invalid")
		case strings.HasPrefix(*t.Key, "aws:"):
			return errTag.with("Your TagKey cannot be prefixed with aws:")
		case seen[*t.Key]:
			return errTag.with("Cannot provide multiple Tags with the same key")
		}
		seen[*t.Key] = true
	}
	if len(tags) > maxTags {
		return errTooManyTags
	}
	return nil
}

func (c *s3Call) getObjectTagging(w http.ResponseWriter, _ *http.Request) error {
	var out tagging
	err := c.withTags(w, func(v *version) { out.TagSet.Tags = v.tags })
	if err != nil {
		return err
	}
	c.answer(w, http.StatusOK, out)
	return nil
}

func (c *s3Call) putObjectTagging(w http.ResponseWriter, r *http.Request) error {
	var in tagging
	if err := document(r, &in); err != nil {
		return err
	}
	if err := checkTags(in.TagSet.Tags); err != nil {
		return err
	}
	if err := c.withTags(w, func(v *version) { v.tags = in.TagSet.Tags }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (c *s3Call) deleteObjectTagging(w http.ResponseWriter, _ *http.Request) error {
	if err := c.withTags(w, func(v *version) { v.tags = nil }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// withTags finds the version that the call names and does something with its tags, with
// the mutex held. Tags are replaced as a whole: those that were read are never changed.
func (c *s3Call) withTags(w http.ResponseWriter, do func(v *version)) error {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return err
	}
	if all := k.objects[c.key]; c.query.Get("versionId") == "" && len(all) > 0 && all[len(all)-1].marker {
		return errMethod // a read would not find the key; recorded with AWS
	}
	v, err := k.lookup(c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	do(v)
	announce(w.Header(), k.shownID(v))
	return nil
}
