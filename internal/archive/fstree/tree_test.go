package fstree

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/countdown"
)

// paths lists what is visible, in the order of insertion.
func paths(t *Tree) []string {
	var list []string
	var walk func(dir ID)
	walk = func(dir ID) {
		for i := range t.Children(dir) {
			list = append(list, t.Path(Root, i))
			walk(i)
		}
	}
	walk(Root)
	return list
}

// A tree keeps the order of insertion. What is removed is hidden with all below it, and
// its name is free again.
func TestTree(t *testing.T) {
	tree := New()
	etc := tree.Insert(Root, []byte("etc"), KindDir)
	usr := tree.Insert(Root, []byte("usr"), KindDir)
	tree.Insert(etc, []byte("b"), KindFile)
	tree.Insert(etc, []byte("a"), KindFile)
	if got := paths(tree); !slices.Equal(got, []string{"etc", "etc/b", "etc/a", "usr"}) {
		t.Errorf("the tree has %q", got)
	}
	tree.Remove(etc)
	if _, ok := tree.Find(Root, []byte("etc")); ok || tree.Child(Root, "etc") != Root {
		t.Error("a removed name is found")
	}
	again := tree.Insert(Root, []byte("etc"), KindFile)
	if got := paths(tree); !slices.Equal(got, []string{"usr", "etc"}) || tree.Child(Root, "etc") != again {
		t.Errorf("after the removal the tree has %q", got)
	}
	tree.Insert(usr, []byte("x"), KindFile)
	tree.Clear(usr)
	if i, ok := tree.Find(Root, []byte("usr")); !ok || i != usr || tree.Child(usr, "x") != Root {
		t.Error("clearing a directory does not hide its entries, or hides the directory")
	}
	if tree.Len() != 7 {
		t.Errorf("%d nodes, want 7 with the root and the hidden ones", tree.Len())
	}
}

// A file stays when its first name is hidden and another is not.
func TestStillLinked(t *testing.T) {
	tree := New()
	file := tree.Insert(Root, []byte("file"), KindFile)
	lonely := tree.Insert(Root, []byte("lonely"), KindFile)
	link := tree.Insert(Root, []byte("link"), KindHardlink)
	tree.At(link).Target = file
	tree.Remove(file)
	tree.Remove(lonely)
	if err := tree.MarkStillLinked(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !tree.At(file).StillLinked || tree.At(lonely).StillLinked || tree.Inode(link) != file {
		t.Error("the linked file is not marked, or the other is")
	}
}

// What lies below a skipped node is not within the tree to be written.
func TestWithin(t *testing.T) {
	tree := New()
	rootfs := tree.Insert(Root, []byte("rootfs"), KindDir)
	kept := tree.Insert(rootfs, []byte("kept"), KindDir)
	skipped := tree.Insert(kept, []byte("skipped"), KindSkipped)
	below := tree.Insert(skipped, []byte("x"), KindFile)
	beside := tree.Insert(Root, []byte("beside"), KindFile)
	for i, want := range map[ID]bool{rootfs: true, kept: true, below: false, beside: false} {
		if tree.Within(rootfs, i) != want {
			t.Errorf("%q within rootfs: want %t", tree.Path(Root, i), want)
		}
	}
	if path := tree.Path(rootfs, below); path != "kept/skipped/x" {
		t.Errorf("the path below rootfs is %q", path)
	}
}

// Attributes are filtered and sorted. Text counts the texts in the tree.
func TestTexts(t *testing.T) {
	tree := New()
	i := tree.Insert(Root, []byte("1234"), KindFile)
	tree.SetXattrs(i, []Xattr{{"user.b", []byte("xy")}, {"user.a", nil}, {"security.x", nil}})
	tree.FilterXattrs(i, func(x Xattr) bool { return strings.HasPrefix(x.Name, "user.") })
	if list := tree.Xattrs(i); len(list) != 2 || list[0].Name != "user.a" || list[1].Name != "user.b" {
		t.Errorf("attributes %v", list)
	}
	link := tree.Insert(Root, []byte("l"), KindSymlink)
	tree.SetLink(link, "/usr")
	tree.SetLink(link, "usr")
	const want = 4 + 6 + 2 + 6 + 10 + 3*xattrOverhead + 1 + 3
	if tree.Text() != want {
		t.Errorf("%d bytes of text, want %d", tree.Text(), want)
	}
	tree.FilterXattrs(i, func(Xattr) bool { return false })
	if tree.Xattrs(i) != nil {
		t.Error("attributes are left")
	}
}

// Walks over a tree look at the context again and again, and end with it.
func TestContextIsLookedAt(t *testing.T) {
	tree := New()
	dir := Root
	for i := range 5_000 {
		if i%1_000 == 0 {
			dir = tree.Insert(Root, fmt.Append(nil, i), KindDir)
		}
		tree.Insert(dir, fmt.Append(nil, i), KindFile)
	}
	for what, do := range map[string]func(context.Context) error{
		"a walk over all nodes": func(ctx context.Context) error {
			return tree.Each(ctx, func(ID) error { return nil })
		},
		"its records": func(ctx context.Context) error {
			_, err := tree.AppendRecords(ctx, nil, Root, "rootfs", make([]*[32]byte, tree.Len()))
			return err
		},
	} {
		if n := countdown.Looks(t, what, do); n < 5 {
			t.Errorf("%s looks %d times", what, n)
		}
	}
}

func TestTruncateName(t *testing.T) {
	for _, n := range []int{0, MaxShown, MaxShown + 1} {
		if got := TruncateName(strings.Repeat("x", n)); len(got) != min(n, MaxShown) {
			t.Errorf("%d bytes of %d", len(got), n)
		}
	}
}
