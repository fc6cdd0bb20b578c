package soak

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"imagemanager.internal/internal/store"
)

// run runs a command that must succeed, beside the daemon, its start, or other commands,
// and reports whether it did.
func (s *soak) run(args ...string) (out string, ok bool) {
	s.T.Helper()
	out, code := s.Try(args...)
	if code != 0 {
		s.Errorf("consumer %s: exit code %d: %s", strings.Join(args, " "), code, lastLine(out))
	}
	return out, code == 0
}

// expectFailure runs a command that must not succeed.
func (s *soak) expectFailure(why string, args ...string) {
	s.T.Helper()
	if out, code := s.Try(args...); code != 1 {
		s.Errorf("consumer %s, %s: exit code %d: %s", strings.Join(args, " "), why, code, lastLine(out))
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}

// takeSnapshot takes one more snapshot of an image.
func (s *soak) takeSnapshot(r *rand.Rand) bool {
	o, v := s.claimActive(r)
	if o == nil {
		return false
	}
	defer s.release(o)
	out, ok := s.run("snapshot", "--json", fmt.Sprint(v.image))
	var rows []store.Snapshot
	if ok && (json.NewDecoder(strings.NewReader(out)).Decode(&rows) != nil || len(rows) != 1) { // the log follows
		s.Errorf("consumer snapshot --json: %s", out)
	}
	for _, row := range rows {
		v.snaps = append(v.snaps, &snap{device: row.Device, path: row.Path, writes: map[string]string{}})
		v.made++
	}
	s.look(o, v)
	return true
}

// removeSnapshot removes a snapshot, which is refused while it is mounted.
func (s *soak) removeSnapshot(r *rand.Rand) bool {
	o, v := s.claimActive(r)
	if o == nil {
		return false
	}
	defer s.release(o)
	if len(v.snaps) == 0 {
		return false
	}
	i := r.IntN(len(v.snaps))
	if sn := v.snaps[i]; sn.mount != nil {
		s.expectFailure("which is mounted", "rm", sn.path)
	} else if _, ok := s.run("rm", sn.path); ok {
		v.snaps = slices.Delete(v.snaps, i, i+1)
	}
	s.look(o, v)
	return true
}

// removeImage removes an image with its snapshots, which is refused while one of them is
// mounted, and without --force while there are any.
func (s *soak) removeImage(r *rand.Rand) bool {
	o, v := s.claimActive(r)
	if o == nil {
		return false
	}
	defer s.release(o)
	if v.isWritten() && r.IntN(3) > 0 { // they are to be there for long
		return false
	}
	id := fmt.Sprint(v.image)
	switch {
	case len(v.snaps) > 0 && r.IntN(5) == 0:
		s.expectFailure("which has snapshots", "rm", id)
	case v.isMounted():
		s.expectFailure("of which a snapshot is mounted", "rm", "--force", id)
	default:
		if _, ok := s.run("rm", "--force", id); ok {
			v.removed, v.seen, v.snaps = true, false, nil
		}
	}
	s.look(o, v)
	return true
}

// verify proves an image.
func (s *soak) verify(r *rand.Rand) bool {
	o, v := s.claimActive(r)
	if o == nil {
		return false
	}
	defer s.release(o)
	s.run("verify", fmt.Sprint(v.image))
	return true
}

// verifyAll proves all images, while others come and go.
func (s *soak) verifyAll(*rand.Rand) bool {
	_, ok := s.run("verify", "--all")
	return ok
}

// submit asks for an object by hand, most of the time for one that is missing or was
// removed.
func (s *soak) submit(r *rand.Rand) bool {
	if !s.troubleMu.TryLock() { // S3 is asked, once
		return false
	}
	defer s.troubleMu.Unlock()
	all := r.IntN(4) == 0
	o := s.claim(r, func(o *object) bool { return o.current != nil && (all || o.current.removed || !o.current.told) })
	if o == nil {
		return false
	}
	defer s.release(o)
	v := o.current
	if _, ok := s.run("submit", o.key); !ok {
		return true
	}
	v.told = true
	if v.removed {
		v.removed = false
		v.made++
	}
	return true
}

// backfill enqueues the objects whose events were lost.
func (s *soak) backfill(*rand.Rand) bool {
	if !s.troubleMu.TryLock() {
		return false
	}
	defer s.troubleMu.Unlock()
	unheard := s.claimUnheard()
	if _, ok := s.run("backfill"); ok {
		for _, o := range unheard {
			o.current.told = true
		}
	}
	for _, o := range unheard {
		s.release(o)
	}
	return true
}

// claimUnheard claims the objects that the daemon was not told of.
func (s *soak) claimUnheard() (list []*object) {
	r := rand.New(rand.NewPCG(0, 0)) //nolint:gosec // all of them are taken
	for {
		o := s.claim(r, func(o *object) bool { return o.current != nil && !o.current.told })
		if o == nil {
			return list
		}
		list = append(list, o)
	}
}

// lookAround runs one of the commands that only look.
func (s *soak) lookAround(r *rand.Rand) bool {
	commands := []string{"status", "images", "snapshots", "pool status", "reconcile --dry-run", "quarantine list"}
	s.run(strings.Fields(commands[r.IntN(len(commands))])...)
	return true
}
