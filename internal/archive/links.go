package archive

import (
	"context"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

const (
	maxFollow = 40 // symbolic links in one path; for more Linux returns ELOOP
	// maxSteps bounds the resolved components of all links of an archive together. A
	// Debian needs about 20,000.
	maxSteps = 8 << 20
)

// linkWalker follows symbolic links in a tree in memory, as the kernel would if root were
// its root directory.
type linkWalker struct {
	tree  *fstree.Tree
	root  fstree.ID
	steps *int // of all walks

	at       fstree.ID // the last existing directory
	missing  int       // components below it, none of which exists
	followed int       // links in this walk
	absolute bool      // a target in this walk is absolute
	climbed  bool      // the walk met ".." at the root, and stayed there, as in a chroot

	own     string // what is left of the first link's target
	more    bool   // own has a component
	clamped bool   // its own target met ".." at the root
	rest    string // what was left of it then

	todo, from, to []string // kept to save allocations
}

// follow follows a link to its end. A loop, or a chain of more than 40 links, is
// harmless: nobody can follow it.
func (w *linkWalker) follow(ctx context.Context, link fstree.ID) error {
	n := w.tree.At(link)
	w.at, w.missing, w.followed, w.climbed, w.clamped = n.Parent, 0, 0, false, false
	w.own, w.more, w.todo = n.Link, true, w.todo[:0]
	if w.absolute = strings.HasPrefix(n.Link, "/"); w.absolute {
		w.at = w.root
	}
	for w.followed <= maxFollow {
		component, own, ok := w.nextComponent()
		if !ok {
			return nil
		}
		if err := w.countStep(ctx); err != nil {
			return err
		}
		if inside := w.resolveComponent(component); !inside && own {
			w.clamped, w.rest = true, w.own
		}
	}
	return nil
}

// nextComponent takes the next component of the targets that are left. own reports that
// it is one of the first link's target, and not of a link behind it.
func (w *linkWalker) nextComponent() (component string, own, ok bool) {
	if top := len(w.todo) - 1; top >= 0 {
		component, rest, more := strings.Cut(w.todo[top], "/")
		if w.todo = w.todo[:top]; more {
			w.todo = append(w.todo, rest)
		}
		return component, false, true
	}
	if ok = w.more; ok {
		component, w.own, w.more = strings.Cut(w.own, "/")
	}
	return component, true, ok
}

// resolveComponent takes one step along a path, and puts the target of a symbolic link on
// the stack. It returns false if the step would lead above the root, and stays there.
// Below a missing component steps are only counted, as the component may be made later.
func (w *linkWalker) resolveComponent(component string) (inside bool) {
	switch {
	case component == "" || component == ".":
	case component != ".." && w.missing > 0:
		w.missing++
	case component != "..":
		w.enter(component)
	case w.missing > 0:
		w.missing--
	case w.at == w.root:
		w.climbed = true
		return false
	default:
		w.at = w.tree.At(w.at).Parent
	}
	return true
}

// enter takes a step into an entry of the directory.
func (w *linkWalker) enter(name string) {
	next := w.tree.Child(w.at, name)
	switch n := w.tree.At(next); {
	case next == fstree.Root:
		w.missing++
	case n.Kind == fstree.KindSymlink:
		w.followed++
		if strings.HasPrefix(n.Link, "/") {
			w.at, w.absolute = w.root, true
		}
		w.todo = append(w.todo, n.Link)
	case n.Kind == fstree.KindDir:
		w.at = next
	default: // a path through a file leads nowhere; the file counts as a missing directory
		w.missing++
	}
}

func (w *linkWalker) countStep(ctx context.Context) error {
	*w.steps++
	if *w.steps%4096 == 0 && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if *w.steps > maxSteps {
		return refuse(SymlinkMaze, "following the symbolic links takes more than %d steps", maxSteps)
	}
	return nil
}

// relative returns a relative target for a link with an absolute one. With root as "/"
// both lead to the same place. It is exact: the parents of a link are directories and not
// links, so each ".." in front leads to a parent in the tree, and what follows is the
// target's own text.
func (w *linkWalker) relative(link fstree.ID, target string) string {
	to, from := w.to[:0], w.from[:0]
	defer func() { w.to, w.from = to, from }()
	for part := range strings.SplitSeq(target, "/") {
		if part != "" && part != "." {
			to = append(to, part)
		}
	}
	for i := w.tree.At(link).Parent; i != w.root; i = w.tree.At(i).Parent {
		from = append(from, w.tree.At(i).Name)
	}
	common := 0
	for common < len(from) && common < len(to) && from[len(from)-1-common] == to[common] {
		common++
	}
	var b strings.Builder
	b.Grow(3*len(from) + len(target))
	for range len(from) - common {
		b.WriteString("../")
	}
	for _, part := range to[common:] {
		b.WriteString(part)
		b.WriteByte('/')
	}
	rel := strings.TrimSuffix(b.String(), "/")
	switch {
	case rel == "":
		rel = "."
	case strings.HasSuffix(target, "/") && len(to) > 0: // it demands a directory
		rel += "/"
	}
	return rel
}
