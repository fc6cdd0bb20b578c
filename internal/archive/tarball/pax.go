package tarball

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"
)

// extension holds the extended headers of the next entry.
type extension struct {
	offset       int64
	text         int64 // bytes
	pax          []byte
	hasPAX       bool
	path, link   []byte // GNU's L and K
	long         []byte // storage of path and link
	seen         map[string]bool
	attributes   map[string]int // indexes into the header's, by name
	sizeOverride int64
	globalTime   *Time // of all entries from here on, if a global header has one
}

func (e *extension) pending() bool { return e.hasPAX || e.path != nil || e.link != nil }

func (e *extension) reset() {
	*e = extension{pax: e.pax[:0], long: e.long[:0], seen: e.seen, attributes: e.attributes, globalTime: e.globalTime}
}

// add adds the data of one extended header; tail is the rest of its last block. It
// refuses two headers for the same purpose: readers disagree about which one counts.
func (e *extension) add(typ byte, data, tail []byte) *Error {
	switch {
	case typ == typeGlobal:
		if e.hasPAX || e.path != nil || e.link != nil {
			return defect(AmbiguousHeader, "a global header between an extended header and its entry")
		}
		e.text = 0 // it belongs to no entry
		return e.addGlobal(data)
	case e.hasPAX, typ == typePAX && (e.path != nil || e.link != nil):
		return defect(AmbiguousHeader, "more than one extended header for one entry")
	case typ == typePAX:
		e.hasPAX, e.pax = true, append(e.pax[:0], data...)
		return nil
	case typ == typeLongName && e.path != nil, typ == typeLongLink && e.link != nil:
		return defect(AmbiguousHeader, "two long names for one entry")
	}
	return e.addLong(typ, data, tail)
}

// addLong adds a long name of GNU tar. GNU tar and CPython read it up to the first NUL,
// be that in the tail; libarchive and Go read no more than the declared size, and others
// read all of it. Only zeros after the text leave no choice.
func (e *extension) addLong(typ byte, data, tail []byte) *Error {
	text := cstring(data)
	switch {
	case len(text) == 0:
		return defect(AmbiguousHeader, "an empty long name")
	case !isZero(data[len(text):]):
		return defect(AmbiguousHeader, "a long name of %d bytes with text after a NUL, at %d", len(data), len(text))
	case !isZero(tail):
		return defect(AmbiguousHeader, "a long name with text after its %d bytes", len(data))
	}
	start := len(e.long)
	e.long = append(e.long, text...)
	text = e.long[start:len(e.long):len(e.long)]
	if typ == typeLongName {
		e.path = text
	} else {
		e.link = text
	}
	return nil
}

// addGlobal reads a global header. It refuses records that would change more than times,
// as libarchive and Go ignore them and others apply them.
func (e *extension) addGlobal(data []byte) *Error {
	return eachRecord(data, func(key string, value []byte) *Error {
		switch {
		case key == "mtime":
			return e.setGlobalTime(value)
		case key == "atime" || key == "ctime": // GNU tar fails on one that is no time
			return checkTime(value)
		case key == "uname" || key == "gname":
			_, err := text(value)
			return err
		case key == "path", key == "linkpath", key == "size", key == "uid", key == "gid",
			key == "SCHILY.fflags", key == "SCHILY.filetype", key == "SCHILY.realsize",
			strings.HasPrefix(key, "SCHILY.xattr."), strings.HasPrefix(key, "SCHILY.acl."),
			strings.HasPrefix(key, "LIBARCHIVE.xattr."), strings.HasPrefix(key, "GNU.sparse."),
			strings.HasPrefix(key, "RHT."), key == "SUN.holesdata":
			return defect(PAXGlobalPath, "a global header sets %.60q", key)
		}
		return nil
	})
}

// setGlobalTime sets the time of the entries that follow. Without a value it takes the
// time back.
func (e *extension) setGlobalTime(value []byte) *Error {
	if len(value) == 0 {
		e.globalTime = nil
		return nil
	}
	t, err := timestamp(value)
	e.globalTime = &t
	return err
}

// checkTime reads a time that is not kept. An empty one is none.
func checkTime(value []byte) *Error {
	if len(value) == 0 {
		return nil
	}
	_, err := timestamp(value)
	return err
}

// apply overrides fields of the header.
func (e *extension) apply(h *Header) *Error {
	if e.globalTime != nil {
		h.ModTime = *e.globalTime
	}
	if e.path != nil {
		h.Name = e.path
	}
	if e.link != nil {
		h.Linkname = e.link
	}
	if !e.hasPAX {
		return nil
	}
	if e.seen == nil {
		e.seen, e.attributes = map[string]bool{}, map[string]int{}
	}
	clear(e.seen)
	clear(e.attributes)
	e.sizeOverride = -1
	if err := eachRecord(e.pax, func(key string, value []byte) *Error { return e.record(h, key, value) }); err != nil {
		if err.Name == "" {
			err.Name = string(h.Name)
		}
		return err
	}
	return e.applySize(h)
}

// applySize accepts a size if the header has none or the same. Otherwise a reader that
// uses the other size would take data for headers (CVE-2025-62518).
func (e *extension) applySize(h *Header) *Error {
	const fits = 8 << 30 // larger sizes do not fit the header
	if e.sizeOverride < 0 {
		return nil
	}
	if h.Size != 0 && h.Size != e.sizeOverride && e.sizeOverride < fits {
		return defect(AmbiguousHeader, "%d bytes by the header, %d by the extended header", h.Size, e.sizeOverride).
			named(h.Name)
	}
	h.Size = e.sizeOverride
	return nil
}

// record applies one PAX record.
func (e *extension) record(h *Header, key string, value []byte) (err *Error) {
	if e.seen[key] {
		return defect(AmbiguousHeader, "two records for %.60q", key)
	}
	e.seen[key] = true
	if len(value) == 0 {
		switch key {
		case "path", "linkpath", "size", "uid", "gid": // to some readers nothing, or 0
			return defect(AmbiguousHeader, "an empty record for %q", key)
		case "mtime":
			return nil
		}
	}
	switch key {
	case "path":
		h.Name, err = text(value)
	case "linkpath":
		h.Linkname, err = text(value)
	case "size":
		e.sizeOverride, err = decimal(value)
	case "uid":
		h.UID, err = owner(value)
	case "gid":
		h.GID, err = owner(value)
	case "mtime":
		h.ModTime, err = timestamp(value)
	case "atime", "ctime":
		err = checkTime(value)
	case "uname", "gname":
		_, err = text(value)
	default:
		err = e.vendor(h, key, value)
	}
	return err
}

// vendor handles keys outside of POSIX. It ignores those without an effect on the
// extracted files.
func (e *extension) vendor(h *Header, key string, value []byte) *Error {
	switch {
	case strings.HasPrefix(key, "GNU.sparse."), key == "SCHILY.realsize", key == "SUN.holesdata":
		return defect(Sparse, "a sparse file (%.60q); store it without holes", key)
	case key == "SCHILY.filetype":
		return defect(UnknownType, "a file type in an extended header")
	case key == "SCHILY.fflags":
		return e.xattr(h, "system.fflags", value)
	case key == "RHT.security.selinux":
		return e.xattr(h, "security.selinux", value)
	}
	if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
		return e.xattr(h, name, value)
	}
	if kind, ok := strings.CutPrefix(key, "SCHILY.acl."); ok {
		return e.xattr(h, "system.acl_"+kind, value)
	}
	if name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr."); ok {
		plain, err := url.PathUnescape(name)
		decoded, err2 := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(value), "="))
		if err != nil || err2 != nil {
			return defect(ParseError, "an extended attribute that is not encoded as it should be: %.60q", key)
		}
		return e.xattr(h, plain, decoded)
	}
	return nil
}

// xattr adds an attribute. bsdtar writes each one in two spellings; they must agree.
func (e *extension) xattr(h *Header, name string, value []byte) *Error {
	i, known := e.attributes[name]
	switch {
	case !known:
		e.attributes[name] = len(h.Xattrs)
		h.Xattrs = append(h.Xattrs, Xattr{Name: []byte(name), Value: value})
	case !bytes.Equal(h.Xattrs[i].Value, value):
		return defect(AmbiguousHeader, "two values for the extended attribute %.60q", name)
	}
	return nil
}

func text(value []byte) ([]byte, *Error) {
	if bytes.IndexByte(value, 0) >= 0 {
		return nil, defect(ParseError, "a NUL within a name")
	}
	return value, nil
}

// eachRecord splits PAX records: "LENGTH KEY=VALUE\n". LENGTH counts the whole record.
func eachRecord(data []byte, do func(key string, value []byte) *Error) *Error {
	for len(data) > 0 {
		digits, _, ok := bytes.Cut(data, []byte(" "))
		n, err := decimal(digits)
		if !ok || err != nil || digits[0] == '0' || n < int64(len(digits))+4 || n > int64(len(data)) ||
			data[n-1] != '\n' {
			return defect(ParseError, "malformed PAX record: %.40q", data)
		}
		key, value, ok := bytes.Cut(data[len(digits)+1:n-1], []byte("="))
		if !ok || len(key) == 0 || bytes.IndexByte(key, 0) >= 0 {
			return defect(ParseError, "malformed PAX record: %.40q", data)
		}
		if err := do(string(key), value); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
