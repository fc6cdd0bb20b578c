package emulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// overrides are the query parameters that change an answer's headers.
var overrides = map[string]string{
	"response-content-type": "Content-Type", "response-content-language": "Content-Language",
	"response-expires":       "Expires",
	"response-cache-control": "Cache-Control", "response-content-disposition": "Content-Disposition",
	"response-content-encoding": "Content-Encoding",
}

// getObject answers GetObject and HeadObject.
func (c *s3Call) getObject(w http.ResponseWriter, r *http.Request) error {
	content, part, err := c.openObject(w.Header(), r)
	if err != nil {
		return err
	}
	defer content.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(part.n, 10))
	w.WriteHeader(part.status)
	if r.Method != http.MethodHead {
		_, _ = content.WriteTo(w) // the client went, or a fault cut the answer: it can see that by the length
	}
	return nil
}

// openObject finds and opens what is asked for, and sets the headers that describe it.
// The mutex is held until the files are open: after that the object may be overwritten.
func (c *s3Call) openObject(h http.Header, r *http.Request) (*section, slice, error) {
	c.buckets.mu.Lock()
	defer c.buckets.mu.Unlock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		return nil, slice{}, err
	}
	v, err := k.lookup(c.key, c.query.Get("versionId"))
	if err != nil {
		return nil, slice{}, err
	}
	if err := keyIn(r.Header, sseHeader).opens(v.encryption); err != nil {
		return nil, slice{}, err
	}
	if err := readable(r, v); err != nil {
		return nil, slice{}, err
	}
	part, err := c.slice(h, r, v)
	if err != nil {
		return nil, slice{}, err
	}
	describe(h, v, k.shownID(v))
	for parameter, header := range overrides {
		if c.query.Has(parameter) {
			h.Set(header, c.query.Get(parameter))
		}
	}
	content, err := v.content.open(part.from, part.n)
	return content, part, err
}

func describe(h http.Header, v *version, id string) {
	for key, values := range v.header {
		h[key] = values
	}
	h.Set("Etag", quoted(v.etag))
	h.Set("Last-Modified", v.modified.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	v.encryption.announce(h)
	tagged(h, v.tags)
	announce(h, id)
}

// readable checks the conditions of a read. Those on the ETag go before those on the
// time: RFC 9110, section 13.2.2.
func readable(r *http.Request, v *version) error {
	if want := r.Header.Get("If-Match"); want != "" {
		if !matches(want, v.etag) {
			return errPrecondition
		}
	} else if t, ok := httpTime(r, "If-Unmodified-Since"); ok && v.modified.Truncate(time.Second).After(t) {
		return errPrecondition
	}
	if not := r.Header.Get("If-None-Match"); not != "" {
		if matches(not, v.etag) {
			return errNotModified.withHeader("Etag", quoted(v.etag))
		}
	} else if t, ok := httpTime(r, "If-Modified-Since"); ok && !v.modified.Truncate(time.Second).After(t) {
		return errNotModified
	}
	return nil
}

// matches reports whether a list of ETags has this one, or is "*".
func matches(list, etag string) bool {
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e == "*" || strings.Trim(strings.TrimPrefix(e, "W/"), `"`) == etag {
			return true
		}
	}
	return false
}

func httpTime(r *http.Request, header string) (time.Time, bool) {
	t, err := http.ParseTime(r.Header.Get(header))
	return t, err == nil
}

// slice is the part of an object that an answer carries.
type slice struct {
	from, n int64
	status  int
}

// slice finds the part that is asked for: all, a range, or a part of an upload in parts.
// It sets the headers that say so. A checksum is given, if asked for, of what it is of:
// not of a range.
func (c *s3Call) slice(h http.Header, r *http.Request, v *version) (slice, error) {
	wantsSum := strings.EqualFold(r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED")
	if c.query.Has("partNumber") {
		return c.numbered(h, v, wantsSum)
	}
	from, n, ranged := parseRange(r.Header.Get("Range"), v.size)
	switch {
	case !ranged:
		if wantsSum {
			v.sum.announce(h)
		}
		return slice{0, v.size, http.StatusOK}, nil
	case n <= 0:
		return slice{}, errRange.withHeader("Content-Range", fmt.Sprintf("bytes */%d", v.size))
	}
	if wantsSum && n == v.size {
		v.sum.announce(h)
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, v.size))
	return slice{from, n, http.StatusPartialContent}, nil
}

// numbered is a part by its number. An object that was uploaded whole is its only part.
func (c *s3Call) numbered(h http.Header, v *version, wantsSum bool) (slice, error) {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxParts {
		return slice{}, errArgument.with("Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	parts := v.parts
	if len(parts) == 0 {
		parts = []part{{size: v.size, sum: v.sum}}
	} else {
		h.Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(parts)))
	}
	if number > len(parts) {
		return slice{}, errPartNumber
	}
	var from int64
	for _, p := range parts[:number-1] {
		from += p.size
	}
	p := parts[number-1]
	switch {
	case !wantsSum:
	case len(parts) == 1 && v.sum.kind == fullObject:
		v.sum.announce(h)
	case v.sum.kind == composite: // of several parts of an object with a checksum of the whole, AWS gives none
		p.sum.kind = composite
		p.sum.announce(h)
	}
	if p.size > 0 {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+p.size-1, v.size))
	}
	return slice{from, p.size, http.StatusPartialContent}, nil
}

// parseRange reads a Range header of one range. One that is malformed, or several, are as
// good as none: RFC 9110, section 14.2. A count of zero is a range that cannot be
// satisfied.
func parseRange(header string, size int64) (from, n int64, ok bool) {
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !found || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	if first == "" {
		suffix, err := strconv.ParseInt(last, 10, 64)
		if err != nil || suffix < 0 {
			return 0, 0, false
		}
		suffix = min(suffix, size)
		return size - suffix, suffix, true
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, 0, false
	}
	end := size - 1
	if last != "" {
		to, err := strconv.ParseInt(last, 10, 64)
		if err != nil || to < from {
			return 0, 0, false
		}
		end = min(end, to)
	}
	return from, end - from + 1, true
}
