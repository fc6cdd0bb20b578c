package archive

import (
	"context"
	"runtime"
	"strings"
)

// id is a node's number. The root is 0, and as no node's child or sibling is the root, 0
// means none there.
type id uint32

const rootID id = 0

type kind uint8

const (
	kindDir kind = iota
	kindFile
	kindSymlink
	kindHardlink
	kindDevice
	kindFIFO
	kindOverlay // a whiteout in overlayfs' manner
	kindSkipped // left out by the policy; the name stays taken
)

// node is one name of the tree. A hundred thousand of them are to fit a few MiB: no maps
// and no slices in here.
type node struct {
	name   string
	link   string // a symbolic link's target
	data   int64  // offset of the data in the archive; the header is right before
	size   int64
	sec    int64
	uid    uint32
	gid    uint32
	nsec   int32
	index  int32 // of the entry in its tarball
	parent id
	first  id // child
	last   id // child
	next   id // sibling
	target id // the file or symbolic link that a hard link names
	names  uint32
	mode   uint16
	kind   kind
	layer  uint8 // that put it here, or put something below it
	gone   bool  // hidden by an upper layer
	held   bool  // gone, but a hard link still has its content
}

type key struct {
	parent id
	name   string
}

const chunkSize = 1024

// tree is a directory tree in memory. Nodes never move and keep the order of the archive.
type tree struct {
	chunks []*[chunkSize]node
	count  id
	index  map[key]id
	xattrs map[id][]Xattr
	text   int64 // bytes of names, targets and attributes: what the tree takes beside its nodes
}

func newTree() *tree {
	t := &tree{index: map[key]id{}, xattrs: map[id][]Xattr{}}
	root := t.at(t.grow())
	root.mode = 0o755
	return t
}

func (t *tree) at(i id) *node { return &t.chunks[i/chunkSize][i%chunkSize] }

func (t *tree) grow() id {
	if int(t.count) == len(t.chunks)*chunkSize {
		t.chunks = append(t.chunks, new([chunkSize]node))
	}
	t.count++
	return t.count - 1
}

// find returns a directory's entry.
func (t *tree) find(dir id, name []byte) (id, bool) {
	i, ok := t.index[key{dir, string(name)}]
	return i, ok
}

// child is find for a name that is known to exist, or rootID.
func (t *tree) child(dir id, name string) id { return t.index[key{dir, name}] }

// insert makes a node. The name must be free.
func (t *tree) insert(dir id, name []byte, k kind) id {
	i := t.grow()
	n := t.at(i)
	n.name, n.parent, n.kind, n.names = string(name), dir, k, 1
	parent := t.at(dir)
	if parent.first == 0 {
		parent.first = i
	} else {
		t.at(parent.last).next = i
	}
	parent.last = i
	t.index[key{dir, n.name}] = i
	t.text += int64(len(name))
	return i
}

// each calls do for all nodes, in the archive's order, those that are gone as well. It
// ends with the cause of ctx.
func (t *tree) each(ctx context.Context, do func(id) error) error {
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

// remove hides a node and all below it.
func (t *tree) remove(i id) {
	n := t.at(i)
	delete(t.index, key{n.parent, n.name})
	n.gone = true
	t.empty(i)
}

// empty hides all below a directory.
func (t *tree) empty(dir id) {
	n := t.at(dir)
	for c := n.first; c != 0; c = t.at(c).next {
		if !t.at(c).gone {
			t.remove(c)
		}
	}
	n.first, n.last = 0, 0
}

// children returns a directory's living entries in the archive's order.
func (t *tree) children(dir id) func(yield func(id) bool) {
	return func(yield func(id) bool) {
		for c := t.at(dir).first; c != 0; c = t.at(c).next {
			if !t.at(c).gone && !yield(c) {
				return
			}
		}
	}
}

// inode is the node whose content a name has.
func (t *tree) inode(i id) id {
	if n := t.at(i); n.kind == kindHardlink {
		return n.target
	}
	return i
}

// hold marks files whose first name is gone while another still stands.
func (t *tree) hold(ctx context.Context) error {
	return t.each(ctx, func(i id) error {
		if n := t.at(i); n.kind == kindHardlink && !n.gone && t.at(n.target).gone {
			t.at(n.target).held = true
		}
		return nil
	})
}

// path is a node's path below root.
func (t *tree) path(root, i id) string {
	var parts []string
	for ; i != root && i != rootID; i = t.at(i).parent {
		parts = append(parts, t.at(i).name)
	}
	for a, b := 0, len(parts)-1; a < b; a, b = a+1, b-1 {
		parts[a], parts[b] = parts[b], parts[a]
	}
	return strings.Join(parts, "/")
}

// within reports whether a node is root or lies below it, and below nothing that is left
// out.
func (t *tree) within(root, i id) bool {
	for i != root && i != rootID && t.at(i).kind != kindSkipped {
		i = t.at(i).parent
	}
	return i == root
}

// manyNodes is how many make it worth while to collect garbage between two phases.
const manyNodes = 10_000

// collect has the garbage of a phase collected that dealt with so many nodes: of a
// hundred thousand it is many MiB, and the next phase is not to come on top of it.
func collect(nodes id) {
	if nodes > manyNodes {
		runtime.GC()
	}
}

// seal gives the memory back that is only needed while the tree is judged.
func (t *tree) seal() { t.index = nil }
