package archive

import (
	"errors"
	"strings"
	"testing"
)

// JSON is read strictly: what another reader could understand differently is refused, and
// so is what would take much memory.
func TestStrictJSON(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"object":               {`{"a":1,"b":[true,null,"x",{}]}`, true},
		"white space around":   {" [ ] \n", true},
		"keys by case":         {`{"a":1,"A":2}`, true},
		"32 deep":              {strings.Repeat("[", 32) + strings.Repeat("]", 32), true},
		"34 deep":              {strings.Repeat("[", 34) + strings.Repeat("]", 34), false},
		"many values":          {"[" + strings.Repeat("0,", 49_000) + "0]", true},
		"too many values":      {"[" + strings.Repeat("0,", 50_000) + "0]", false},
		"key twice":            {`{"a":1,"a":1}`, false},
		"key twice by escapes": {`{"a":1,"\u0061":1}`, false},
		"behind":               {`{} {}`, false},
		"garbage behind":       {`{}x`, false},
		"not UTF-8":            {"\"\xff\"", false},
		"cut off":              {`{"a":[1`, false},
		"empty":                {"", false},
	} {
		if _, err := parseStrictJSON(t.Context(), []byte(c.text)); (err == nil) != c.ok || err != nil && !errors.Is(err,
			errMalformedJSON) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzStrictJSON: JSON of strangers.
func FuzzStrictJSON(f *testing.F) {
	f.Add([]byte(`[{"Config":"x","Layers":["a","b"],"n":1.5e3,"t":true,"z":null}]`))
	f.Add([]byte(`{"a":{"a":{"a":[[[]]]}}} `))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseStrictJSON(t.Context(), b); err != nil && !errors.Is(err, errMalformedJSON) {
			t.Errorf("%v", err)
		}
	})
}
