// Package page reads the pages of the documentation: the README, its neighbours and
// docs/. It finds the blocks of commands that a reader is told to type, and knows which
// of them the tests cannot run.
package page

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Shell is the language of blocks that a reader types.
const Shell = "sh"

// Block is a fenced block of a page.
type Block struct {
	Page     string // path in the repository
	Line     int    // of the opening fence, from 1
	Language string // what the opening fence names
	Text     string // without the fences and their indentation; ends with a line feed
}

// String says where the block is.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// All returns the text of every page by its path in the repository at root.
func All(root string) (map[string]string, error) {
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no page matches %s: %w", pattern, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			rel, err := filepath.Rel(root, f)
			if err != nil {
				return nil, err
			}
			all[rel] = string(text)
		}
	}
	return all, nil
}

// Blocks returns the fenced blocks of a page, in order. A block that is not closed is
// returned with the rest of the page.
func Blocks(name, text string) []Block {
	const fence = "```"
	var blocks []Block
	indent, inside, number := "", false, 0
	for line := range strings.Lines(text) {
		number++
		unindented := strings.TrimLeft(line, " ")
		rest, isFence := strings.CutPrefix(unindented, fence)
		switch last := len(blocks) - 1; {
		case isFence && !inside:
			indent = strings.TrimSuffix(line, unindented)
			blocks = append(blocks, Block{Page: name, Line: number, Language: strings.TrimSpace(rest)})
			inside = true
		case isFence:
			inside = false
		case inside:
			blocks[last].Text += strings.TrimPrefix(line, indent)
		}
	}
	return blocks
}

// ShellBlocks returns the blocks that a reader of the repository's pages types: page by
// page, in the order of their names.
func ShellBlocks(root string) ([]Block, error) {
	pages, err := All(root)
	if err != nil {
		return nil, err
	}
	var blocks []Block
	for name, text := range pages {
		for _, b := range Blocks(name, text) {
			if b.Language == Shell {
				blocks = append(blocks, b)
			}
		}
	}
	slices.SortFunc(blocks, func(a, b Block) int {
		if a.Page != b.Page {
			return strings.Compare(a.Page, b.Page)
		}
		return a.Line - b.Line
	})
	return blocks, nil
}
