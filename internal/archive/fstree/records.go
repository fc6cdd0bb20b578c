package fstree

import (
	"cmp"
	"context"
	"slices"
)

// AppendRecords appends the records of the tree below root to list, as an inventory has
// them. The root's record gets this name. sums are the SHA-256 of the files, by the ID of
// their inode. The error is the cause of ctx.
func (t *Tree) AppendRecords(ctx context.Context, list []*Record, root ID, name string, sums []*[32]byte) ([]*Record,
	error,
) {
	w := &recordWriter{tree: t, sums: sums, first: map[ID]*Record{}, list: list}
	err := w.add(ctx, root, name, nil)
	return w.list, err
}

type recordWriter struct {
	tree  *Tree
	sums  []*[32]byte
	first map[ID]*Record // of files with several names
	list  []*Record
}

// add appends the record of a node, and those of everything below it.
func (w *recordWriter) add(ctx context.Context, i ID, name string, parent *Record) error {
	inode := w.tree.Inode(i)
	n := w.tree.At(inode)
	r := &Record{
		Parent: parent, Name: name, Mode: n.Mode, UID: n.UID, GID: n.GID, Sec: n.Sec, Nsec: n.Nsec,
		Xattrs: w.tree.Xattrs(inode),
	}
	switch n.Kind {
	case KindSkipped:
		return nil
	case KindDir:
		r.Type = TypeDir
	case KindSymlink:
		r.Type, r.Target = TypeSymlink, n.Link
	default:
		r.Type, r.Size, r.SHA256 = TypeFile, n.Size, w.sums[inode]
		if n.Names > 1 {
			if r.First = w.first[inode]; r.First == nil {
				w.first[inode] = r
			}
		}
	}
	w.list = append(w.list, r)
	if n.Kind != KindDir {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.addChildren(ctx, i, r)
}

func (w *recordWriter) addChildren(ctx context.Context, dir ID, parent *Record) error {
	sorted := slices.SortedFunc(w.tree.Children(dir),
		func(a, b ID) int { return cmp.Compare(w.tree.At(a).Name, w.tree.At(b).Name) })
	for _, child := range sorted {
		if err := w.add(ctx, child, w.tree.At(child).Name, parent); err != nil {
			return err
		}
	}
	return nil
}
