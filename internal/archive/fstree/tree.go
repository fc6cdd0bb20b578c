// Package fstree holds a directory tree in memory, and the inventory of one.
//
// A [Tree] is built from the entries of an archive, judged, changed and then written. It
// is compact: a hundred thousand names fit a few MiB. File contents stay in the archive;
// a [Node] knows their offset.
//
// An [Inventory] lists every name of a tree with all attributes and the SHA-256 of each
// file, in a canonical order. One is made of what is written ([Tree.AppendRecords]),
// another of what is read back; trees are equal if the digests of their inventories are.
// An inventory can be saved and read again, and it names the differences to another.
//
// The package makes no system calls and knows neither archives nor policies.
package fstree

import (
	"context"
	"strings"
)

// ID is a node's number in its tree.
type ID uint32

// Root is the ID of a tree's root. Nothing links to the root, so in a field or a result
// that names a child or sibling, Root means none.
const Root ID = 0

const chunkSize = 1024

// Tree is a directory tree. Nodes never move, and their IDs are in the order of their
// insertion. A Tree is not safe for concurrent use while it is changed.
type Tree struct {
	chunks []*[chunkSize]Node
	count  ID
	index  map[key]ID
	xattrs map[ID][]Xattr
	text   int64
}

type key struct {
	parent ID
	name   string
}

// New returns a tree with an empty root of mode 0755.
func New() *Tree {
	t := &Tree{index: map[key]ID{}, xattrs: map[ID][]Xattr{}}
	t.At(t.grow()).Mode = 0o755
	return t
}

// At returns a node. Its text and attributes are changed with SetLink and SetXattrs only.
func (t *Tree) At(i ID) *Node { return &t.chunks[i/chunkSize][i%chunkSize] }

// Len is the number of nodes, hidden and skipped ones included. IDs are smaller.
func (t *Tree) Len() int { return int(t.count) }

// Text returns the bytes of all names, link targets and attributes set. Each
// attribute counts 64 bytes more for its bookkeeping. With the nodes it is about what the
// tree takes of memory.
func (t *Tree) Text() int64 { return t.text }

func (t *Tree) grow() ID {
	if int(t.count) == len(t.chunks)*chunkSize {
		t.chunks = append(t.chunks, new([chunkSize]Node))
	}
	t.count++
	return t.count - 1
}

// Find returns the entry of a directory with this name.
func (t *Tree) Find(dir ID, name []byte) (ID, bool) {
	i, ok := t.index[key{dir, string(name)}] // the compiler makes no string here
	return i, ok
}

// Child is Find for a string. It returns Root if there is no such entry.
func (t *Tree) Child(dir ID, name string) ID { return t.index[key{dir, name}] }

// FreeIndex frees the index of names. Find, Child, Insert and Remove may not be called
// afterwards.
func (t *Tree) FreeIndex() { t.index = nil }

// Insert makes a node in a directory. The name must be free.
func (t *Tree) Insert(dir ID, name []byte, k Kind) ID {
	i := t.grow()
	n := t.At(i)
	n.Name, n.Parent, n.Kind, n.Names = string(name), dir, k, 1
	parent := t.At(dir)
	if parent.first == Root {
		parent.first = i
	} else {
		t.At(parent.last).next = i
	}
	parent.last = i
	t.index[key{dir, n.Name}] = i
	t.text += int64(len(name))
	return i
}

// SetLink sets a symbolic link's target.
func (t *Tree) SetLink(i ID, target string) {
	n := t.At(i)
	t.text += int64(len(target) - len(n.Link))
	n.Link = target
}

// Remove hides a node and all nodes below it. Their memory stays in use.
func (t *Tree) Remove(i ID) {
	n := t.At(i)
	delete(t.index, key{n.Parent, n.Name})
	n.Gone = true
	t.Clear(i)
}

// Clear hides all nodes below a directory.
func (t *Tree) Clear(dir ID) {
	n := t.At(dir)
	for c := n.first; c != Root; c = t.At(c).next {
		if !t.At(c).Gone {
			t.Remove(c)
		}
	}
	n.first, n.last = Root, Root
}

// MarkStillLinked marks hidden files that a visible hard link still names.
func (t *Tree) MarkStillLinked(ctx context.Context) error {
	return t.Each(ctx, func(i ID) error {
		if n := t.At(i); n.Kind == KindHardlink && !n.Gone && t.At(n.Target).Gone {
			t.At(n.Target).StillLinked = true
		}
		return nil
	})
}

// Each calls do for all nodes, hidden ones included, in the order of their insertion. It
// ends with the first error, or with the cause of ctx.
func (t *Tree) Each(ctx context.Context, do func(ID) error) error {
	for i := range t.count {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}

// Children returns the visible entries of a directory, in the order of their insertion.
func (t *Tree) Children(dir ID) func(yield func(ID) bool) {
	return func(yield func(ID) bool) {
		for c := t.At(dir).first; c != Root; c = t.At(c).next {
			if !t.At(c).Gone && !yield(c) {
				return
			}
		}
	}
}

// HasChildren reports whether a directory has a visible entry.
func (t *Tree) HasChildren(dir ID) bool {
	for range t.Children(dir) {
		return true
	}
	return false
}

// Inode returns the node that holds the content of a name: the target of a hard link, and
// otherwise the node itself.
func (t *Tree) Inode(i ID) ID {
	if n := t.At(i); n.Kind == KindHardlink {
		return n.Target
	}
	return i
}

// Path returns a node's path below root, without a leading slash.
func (t *Tree) Path(root, i ID) string {
	var parts []string
	for ; i != root && i != Root; i = t.At(i).Parent {
		parts = append(parts, t.At(i).Name)
	}
	for a, b := 0, len(parts)-1; a < b; a, b = a+1, b-1 {
		parts[a], parts[b] = parts[b], parts[a]
	}
	return strings.Join(parts, "/")
}

// Depth returns the number of components of a node's path.
func (t *Tree) Depth(i ID) int {
	depth := 0
	for ; i != Root; i = t.At(i).Parent {
		depth++
	}
	return depth
}

// Within reports whether a node is root or lies below it, and is not below a skipped
// node.
func (t *Tree) Within(root, i ID) bool {
	for i != root && i != Root && t.At(i).Kind != KindSkipped {
		i = t.At(i).Parent
	}
	return i == root
}
