package download

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

const prefix = "images/"

func TestValidateKey(t *testing.T) {
	accepted := []string{
		"images/a.tar", "images/a/b/c.tar", "images/a b+c%2Fd.tar", "images/ü/日本.tar", "images/..a", "images/a..",
		"images/...", "images/.a",
		"images/a:b@sha256", "images/" + strings.Repeat("a", maxKey-len(prefix)), "images/%2e%2e/a", "images/\u00a0",
	}
	for _, key := range accepted {
		if err := ValidateKey(key, prefix); err != nil {
			t.Errorf("%.40q: %v", key, err)
		}
	}
	refused := map[string]string{
		"empty":                 "",
		"prefix alone":          "images/",
		"no slash":              "images",
		"beside the prefix":     "imagesx/a.tar",
		"elsewhere":             "other/a.tar",
		"absolute":              "/images/a.tar",
		"parent":                "images/../a.tar",
		"parent at the end":     "images/a/..",
		"parent at the start":   "../images/a.tar",
		"dot":                   "images/./a.tar",
		"dot at the end":        "images/.",
		"directory marker":      "images/a/",
		"empty component":       "images//a.tar",
		"backslash":             `images/..\a.tar`,
		"NUL":                   "images/a\x00.tar",
		"line feed":             "images/a\nb.tar",
		"carriage return":       "images/a\rb.tar",
		"escape":                "images/\x1b[2Ja.tar",
		"delete":                "images/a\x7f.tar",
		"C1 control":            "images/a\u0085.tar",
		"line separator":        "images/a\u2028.tar",
		"paragraph separator":   "images/a\u2029.tar",
		"right-to-left":         "images/a\u202erat.tar",
		"isolate":               "images/a\u2066b.tar",
		"not UTF-8":             "images/\xff.tar",
		"overlong slash":        "images/\xc0\xaf.tar",
		"a byte too long":       "images/" + strings.Repeat("a", maxKey-len(prefix)+1),
		"too long in bytes":     "images/" + strings.Repeat("ü", 510),
		"huge":                  "images/" + strings.Repeat("a/", 1<<20) + "a",
		"control in the prefix": "images\n/a.tar",
	}
	for name, key := range refused {
		if err := ValidateKey(key, prefix); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want ErrKey", name, err)
		}
	}
}

// An error goes into logs and the journal: it must not carry what it refuses.
func TestRefusalIsPrintable(t *testing.T) {
	for _, key := range []string{"images/a\nb", "images/\x1b[2J", "images/a\u202eb", "images/\xff"} {
		if err := ValidateKey(key, prefix); err == nil || strings.ContainsFunc(err.Error(), isForbidden) ||
			len(err.Error()) > 200 {
			t.Errorf("%q: the error is %q", key, err)
		}
	}
}

func FuzzValidateKey(f *testing.F) {
	for _, key := range []string{
		"", "images/", "images/a.tar", "images/../a", "images/a/..", "/images/a",
		"images/a\x00", "images/\xff", "images//", `images\a`,
	} {
		f.Add(key, prefix)
	}
	f.Add("a", "")
	f.Fuzz(func(t *testing.T, key, prefix string) {
		err := ValidateKey(key, prefix)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("%q: %v is not ErrKey", key, err)
			}
			return
		}
		switch {
		case len(key) > maxKey || !utf8.ValidString(key) || !strings.HasPrefix(key, prefix) || key == prefix:
			t.Fatalf("%q accepted under %q", key, prefix)
		case path.IsAbs(key) || path.Clean(key) != key || key == ".." || strings.HasPrefix(key, "../"):
			t.Fatalf("%q accepted and is not a clean path", key)
		case strings.ContainsAny(key, "\x00\r\n\\\x1b"):
			t.Fatalf("%q accepted", key)
		}
	})
}
