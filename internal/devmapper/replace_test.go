package devmapper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Only what holds nothing is empty: no file, a file of zeros that were never written, and
// not one with a byte far behind its beginning.
func TestCheckEmpty(t *testing.T) {
	for name, c := range map[string]struct {
		size, at int64 // at: where a byte is written, -1 nowhere
		empty    bool
	}{
		"sparse":    {1 << 30, -1, true},
		"nothing":   {0, -1, true},
		"beginning": {1 << 30, 0, false},
		"end":       {1 << 30, 1<<30 - 1, false},
		"small":     {100, 50, false},
	} {
		path := filepath.Join(t.TempDir(), name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Truncate(c.size)
		if c.at >= 0 && err == nil {
			_, err = f.WriteAt([]byte{1}, c.at)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := CheckEmpty(path); (err == nil) != c.empty || err != nil && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, want empty: %t", name, err, c.empty)
		}
	}
	if err := CheckEmpty(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no file: %v", err)
	}
}
