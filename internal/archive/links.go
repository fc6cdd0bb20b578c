package archive

import (
	"context"
	"strings"
)

const (
	maxFollow = 40      // links that Linux follows in one path before it gives up with ELOOP
	maxSteps  = 8 << 20 // components looked at for all links of an archive together; a Debian needs about 20,000
)

// walker follows symbolic links in the finished tree, as the kernel would if root were
// its root directory.
type walker struct {
	tree  *tree
	root  id
	steps int

	todo, from, to []string // kept to save allocations
}

// escapes tells whether following the link ever climbs over the root. A loop or a chain
// of more than 40 links cannot be followed and thus is harmless. Behind a missing
// component the rest is counted as text by the same rule: the component may be made
// later.
func (w *walker) escapes(ctx context.Context, link id) (bool, error) {
	at, missing := w.tree.at(link).parent, 0
	todo := w.todo[:0]
	todo = append(todo, w.tree.at(link).link)
	defer func() { w.todo = todo }()
	for followed := 0; len(todo) > 0; {
		part, rest, more := strings.Cut(todo[len(todo)-1], "/")
		if todo = todo[:len(todo)-1]; more {
			todo = append(todo, rest)
		}
		if err := w.step(ctx); err != nil {
			return false, err
		}
		switch {
		case part == "" || part == ".":
			continue
		case part == ".." && missing > 0:
			missing--
			continue
		case part == ".." && at == w.root:
			return true, nil
		case part == "..":
			at = w.tree.at(at).parent
			continue
		case missing > 0:
			missing++
			continue
		}
		next, ok := w.tree.index[key{at, part}]
		switch {
		case !ok:
			missing++
		case w.tree.at(next).kind == kindSymlink:
			if followed++; followed > maxFollow {
				return false, nil
			}
			target := w.tree.at(next).link
			if strings.HasPrefix(target, "/") {
				at = w.root
			}
			todo = append(todo, target)
		case w.tree.at(next).kind == kindDir:
			at = next
		default: // a path through a file leads nowhere; it is counted as if it were a directory
			missing++
		}
	}
	return false, nil
}

func (w *walker) step(ctx context.Context) error {
	w.steps++
	if w.steps%4096 == 0 && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.steps > maxSteps {
		return refuse(SymlinkMaze, "following the symbolic links takes more than %d steps", maxSteps)
	}
	return nil
}

// relative is the relative target that leads from a link's directory to where the
// absolute target leads with root as "/". It is exact: the directories above a link are
// directories and not links, so that ".." does what it looks like. It fails for a target
// with "..", which may lead anywhere once links are followed.
func (w *walker) relative(link id, target string) (string, bool) {
	to, from := w.to[:0], w.from[:0]
	defer func() { w.to, w.from = to, from }()
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", false
		default:
			to = append(to, part)
		}
	}
	for i := w.tree.at(link).parent; i != w.root; i = w.tree.at(i).parent {
		from = append(from, w.tree.at(i).name)
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
	return rel, true
}
