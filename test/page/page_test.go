package page

import (
	"slices"
	"testing"
)

const root = "../.."

// Blocks are found with their language, also in lists, and without what is around them.
func TestBlocks(t *testing.T) {
	text := "# Title\n\n```sh\nmake\nmake test\n```\n\n- item\n\n  ```text\n  indented\n    more\n  ```\n\n```\nplain\n"
	want := []Block{
		{"page.md", 3, "sh", "make\nmake test\n"},
		{"page.md", 10, "text", "indented\n  more\n"},
		{"page.md", 15, "", "plain\n"},
	}
	if got := Blocks("page.md", text); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Blocks of one page come in its order, and pages one after the other.
func TestShellBlocks(t *testing.T) {
	blocks, err := ShellBlocks(root)
	if err != nil || len(blocks) < 10 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	for i, b := range blocks[1:] {
		if before := blocks[i]; before.Page > b.Page || before.Page == b.Page && before.Line >= b.Line {
			t.Errorf("%s comes before %s", before, b)
		}
	}
}

// Each entry of the list is about one block, says why, and is needed.
func TestOutOfReach(t *testing.T) {
	blocks, err := ShellBlocks(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range OutOfReach {
		n := 0
		for _, b := range blocks {
			if found, ok := FindElsewhere(b); ok && found == e {
				n++
			}
		}
		if n != 1 || e.Why == "" {
			t.Errorf("%d blocks of %s begin with %q; the reason is %q", n, e.Page, e.Begins, e.Why)
		}
	}
}
