package download

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxKey is the longest object key in bytes, UTF-8 (Amazon S3 user guide, "Naming Amazon
// S3 objects").
const maxKey = 1024

// ValidateKey refuses, with ErrKey, every key that is not a plain path under the prefix.
// S3 itself allows nearly any text. The refused keys are useless as names of images, and
// could turn into another path, or into another line of a log, further on:
//
//   - more than 1024 bytes, or not valid UTF-8
//   - not under the prefix, nothing after it, or a trailing "/" (a directory marker)
//   - a component that is "." or "..", or empty ("//", a leading "/")
//   - control characters, and bidirectional ones: they make one name look like another
//   - a backslash: some tools take it for a separator, and S3 advises against it
//
// Local file names are not made from keys; this is the second line of defence, not the
// first. Percent signs stay as they are: nothing decodes a key again.
func ValidateKey(key, prefix string) error {
	rest, under := strings.CutPrefix(key, prefix)
	switch {
	case len(key) > maxKey:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrKey, len(key), maxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: not valid UTF-8", ErrKey)
	case !under:
		return fmt.Errorf("%w: not under %q", ErrKey, prefix)
	case rest == "":
		return fmt.Errorf("%w: nothing after the prefix %q", ErrKey, prefix)
	}
	for _, component := range strings.Split(key, "/") {
		if component == "" || component == "." || component == ".." {
			return fmt.Errorf("%w: path component %q", ErrKey, component)
		}
	}
	if i := strings.IndexFunc(key, isForbidden); i >= 0 {
		r, _ := utf8.DecodeRuneInString(key[i:])
		return fmt.Errorf("%w: character %U at byte %d", ErrKey, r, i)
	}
	return nil
}

// isForbidden reports whether a character is forbidden in a key.
func isForbidden(r rune) bool {
	return r == '\\' || r == '\u2028' || r == '\u2029' || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}
