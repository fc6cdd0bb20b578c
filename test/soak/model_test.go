package soak

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
)

// model is what was done, and so what must be there.
type model struct {
	objectsMu sync.Mutex
	objects   []*object
	mounted   int // snapshots that users have mounted
}

// object is a key of the bucket. Who has claimed it may read and change it.
type object struct {
	key      string
	versions []*version
	current  *version // what the bucket has; nil: nothing

	busy bool // claimed; guarded by objectsMu
}

// version is one content of an object, and with it one image.
type version struct {
	build func() []byte
	etag  string
	want  store.State // what it comes to, unless it is overwritten or removed before
	hello string      // what etc/hello says; empty: not looked at

	told    bool  // somebody has told the daemon: an event, a submit, or a backfill
	removed bool  // by an operator, and not submitted since
	passed  bool  // it was overwritten or deleted before it was fetched
	seen    bool  // it was seen active
	broken  bool  // a failure was told; no more about it
	image   int64 // once it was seen
	made    int   // how often a snapshot of it was made
	snaps   []*snap
}

// snap is a snapshot of an image.
type snap struct {
	device int64
	path   string
	writes map[string]string // by file: what its user wrote
	mount  *ext4.Mount       // nil: not mounted
}

// claim takes an object at random that nobody has claimed, nil if none fits.
func (m *model) claim(r *rand.Rand, fits func(o *object) bool) *object {
	m.objectsMu.Lock()
	defer m.objectsMu.Unlock()
	var list []*object
	for _, o := range m.objects {
		if !o.busy && fits(o) {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		return nil
	}
	o := list[r.IntN(len(list))]
	o.busy = true
	return o
}

// create makes an object, which the caller has claimed.
func (m *model) create(key string) *object {
	m.objectsMu.Lock()
	defer m.objectsMu.Unlock()
	o := &object{key: key, busy: true}
	m.objects = append(m.objects, o)
	return o
}

func (m *model) release(o *object) {
	m.objectsMu.Lock()
	defer m.objectsMu.Unlock()
	o.busy = false
}

// mounts changes the number of mounted snapshots, and reports whether there may be so
// many.
func (m *model) mounts(by int) bool {
	const most = 4
	m.objectsMu.Lock()
	defer m.objectsMu.Unlock()
	if m.mounted+by > most {
		return false
	}
	m.mounted += by
	return true
}

// newVersion adds a content to an object; the same bytes as before are the same version.
func (o *object) newVersion(build func() []byte, want store.State, hello string) *version {
	sum := md5.Sum(build())
	etag := hex.EncodeToString(sum[:])
	for _, v := range o.versions {
		if v.etag == etag {
			return v
		}
	}
	v := &version{build: build, etag: etag, want: want, hello: hello, made: 1}
	o.versions = append(o.versions, v)
	return v
}

// mayBeUsed: it is an image, as far as is known.
func (v *version) mayBeUsed() bool {
	return v.want == store.StateActive && v.told && !v.removed && !v.passed && !v.broken
}

func (v *version) isMounted() bool {
	return slices.ContainsFunc(v.snaps, func(sn *snap) bool { return sn.mount != nil })
}

func (v *version) isWritten() bool {
	return slices.ContainsFunc(v.snaps, func(sn *snap) bool { return len(sn.writes) > 0 })
}

// holdsImage reports whether an image of the object may be used.
func holdsImage(o *object) bool { return slices.ContainsFunc(o.versions, (*version).mayBeUsed) }

// claimActive claims an object and returns an active image of it, or claims nothing and
// returns nil.
func (s *soak) claimActive(r *rand.Rand) (*object, *version) {
	o := s.claim(r, holdsImage)
	if o == nil {
		return nil, nil
	}
	list := slices.DeleteFunc(slices.Clone(o.versions), func(v *version) bool { return !v.mayBeUsed() })
	v := list[r.IntN(len(list))]
	if s.look(o, v) == store.StateActive && !v.broken {
		return o, v
	}
	s.release(o)
	return nil, nil
}

// look compares the image with what is known of it, and returns its state, empty where
// there is none. What was active stays so, and has the snapshots that it had.
func (s *soak) look(o *object, v *version) store.State {
	s.T.Helper()
	img, err := s.Store.Find(s.T.Context(), store.Object{Bucket: s.Cloud.Name, Key: o.key, ETag: v.etag})
	if !errors.Is(err, store.ErrNotFound) {
		s.Check(err)
	}
	v.image = img.ID
	v.passed = v != o.current && (img.State == store.StateSuperseded || img.State == store.StateVanished)
	switch {
	case v.broken || v.removed:
	case img.State == store.StateActive:
		s.lookAtSnapshots(o, v)
	case v.seen:
		s.failVersion(v, "%s: image %d was active and is %s: %s", o.key, img.ID, img.State, img.Reason)
	}
	return img.State
}

// failVersion reports a failure of an image. Its later failures are not reported.
func (s *soak) failVersion(v *version, format string, args ...any) {
	s.T.Helper()
	v.broken = true
	s.Errorf(format, args...)
}

func (s *soak) lookAtSnapshots(o *object, v *version) {
	s.T.Helper()
	rows, err := s.Store.SnapshotsOf(s.T.Context(), v.image)
	s.Check(err)
	if !v.seen {
		v.seen = true
		for _, row := range rows {
			v.snaps = append(v.snaps, &snap{device: row.Device, path: row.Path, writes: map[string]string{}})
		}
		if len(rows) != 1 {
			s.failVersion(v, "%s: image %d became active with %d snapshots", o.key, v.image, len(rows))
		}
		return
	}
	var got, want []string
	for _, row := range rows {
		got = append(got, row.Path)
	}
	for _, sn := range v.snaps {
		want = append(want, sn.path)
	}
	if slices.Sort(got); !slices.Equal(got, sorted(want)) {
		s.failVersion(v, "%s: image %d has the snapshots %q, and had %q", o.key, v.image, got, want)
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// mismatches says what is not as it must be in the end; nothing if all is. It looks at
// every object that nobody has claimed.
func (s *soak) mismatches() (list []string) {
	for _, o := range s.objects {
		for _, v := range o.versions {
			if v.broken {
				continue
			}
			state, want := s.look(o, v), v.mayEnd(o)
			if !slices.Contains(want, state) && !v.broken {
				list = append(list, fmt.Sprintf("%s: image %d is %q, want one of %q", o.key, v.image, state, want))
			}
		}
	}
	return list
}

// mayEnd is what the version may have come to. What the bucket still has comes to what it
// is; what was overwritten or deleted may have been too late for that.
func (v *version) mayEnd(o *object) []store.State {
	switch {
	case v.removed:
		return []store.State{store.StateRemoved}
	case v == o.current || v.seen:
		return []store.State{v.want}
	case !v.told:
		return []store.State{"", v.want, store.StateSuperseded, store.StateVanished}
	}
	return []store.State{v.want, store.StateSuperseded, store.StateVanished}
}
