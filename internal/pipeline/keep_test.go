package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"imagemanager.internal/internal/store"
)

// Setting an archive aside again, as a recovery or a reconcile does, makes no room for it
// once more: that would push out another one.
func TestSetAsideAgain(t *testing.T) {
	dir := t.TempDir()
	p := &Pipeline{cfg: Config{ViolationDir: filepath.Join(dir, "violations"), ViolationBytes: 250}}
	for i := range 2 {
		blob := &store.Blob{Path: filepath.Join(dir, fmt.Sprint(i)), SHA256: fmt.Sprint("sum", i), Size: 100}
		if err := os.WriteFile(blob.Path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.setAside(blob); err != nil {
				t.Fatal(err)
			}
		}
	}
	if kept, err := os.ReadDir(p.cfg.ViolationDir); err != nil || len(kept) != 2 {
		t.Errorf("kept: %v, %v; there is room for both", kept, err)
	}
}
