package soak

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// upload uploads some new images.
func (s *soak) upload(r *rand.Rand) bool {
	s.makeRoom(r)
	for range 1 + r.IntN(3) {
		o := s.create(newKey(r))
		s.put(o, goodVersion(o, r))
		s.release(o)
	}
	return true
}

// makeRoom waits while there is much to do, and removes images where there are too many:
// several, so that there are times of many removals and times of few.
func (s *soak) makeRoom(r *rand.Rand) {
	s.waitForRoom()
	switch n := s.count(store.StateActive, store.StatePending); {
	case n < mostImages:
		return
	case n > 2*mostImages: // removals do not keep up
		s.removeMu.Lock()
	case !s.removeMu.TryLock():
		return
	}
	defer s.removeMu.Unlock()
	for range 2 * (mostImages - fewImages) {
		if s.count(store.StateActive, store.StatePending) <= fewImages || s.isOver() {
			return
		}
		if s.removeImage(r) {
			s.recordStep("rm an image")
		}
	}
}

func newKey(r *rand.Rand) string { return fmt.Sprintf("images/%016x.tar", r.Uint64()) }

// goodVersion is a root file system of some files, in one of five one of the archives
// that every policy accepts.
func goodVersion(o *object, r *rand.Rand) *version {
	if r.IntN(5) == 0 {
		good := archives().good
		c := good[r.IntN(len(good))]
		return o.newVersion(func() []byte { return c.Bytes }, store.StateActive, "")
	}
	hello, files := fmt.Sprintf("%016x", r.Uint64()), 3+r.IntN(40)
	return o.newVersion(func() []byte { return tarballs.RootFS(hello, files) }, store.StateActive, hello)
}

// put uploads a version, and its event goes out.
func (s *soak) put(o *object, v *version) {
	s.T.Helper()
	s.putMu.Lock()
	defer s.putMu.Unlock()
	s.Check(s.Cloud.Put(s.T.Context(), o.key, v.build()))
	o.current, v.told, v.passed = v, true, false
}

// uploadInTrouble uploads an image whose download fails once or twice: S3 may do so, and
// the image does not suffer.
func (s *soak) uploadInTrouble(r *rand.Rand) bool {
	troubles := []emulator.Fault{
		{Times: 2, Status: 500},
		{Times: 2, Status: 503, Code: "SlowDown"},
		{Times: 1, Status: 403, Code: "AccessDenied"},
		{Times: 2, Reset: true},
		{Times: 2, Reset: true, After: 9000},
		{Times: 2, Break: true, After: 9000},
		{Times: 1, Corrupt: true, After: 9000},
		{Times: 1, Hang: true, After: 9000},
		{Times: 1, Rate: 100_000},
	}
	s.makeRoom(r)
	o := s.create(newKey(r))
	defer s.release(o)
	f := troubles[r.IntN(len(troubles))]
	f.Op, f.Target = "GetObject", s.Cloud.Name+"/"+o.key
	s.Cloud.Emulator.Fault(f)
	s.put(o, goodVersion(o, r))
	return true
}

// uploadUnheard uploads an image whose event is lost: it is found by a backfill, or
// submitted.
func (s *soak) uploadUnheard(r *rand.Rand) bool {
	if !s.troubleMu.TryLock() {
		return false
	}
	defer s.troubleMu.Unlock()
	s.makeRoom(r)
	o := s.create(newKey(r))
	defer s.release(o)
	v := goodVersion(o, r)
	s.putMu.Lock()
	defer s.putMu.Unlock()
	s.Cloud.Emulator.Fault(emulator.Fault{Op: "Notify", Times: 1, Status: http.StatusInternalServerError})
	s.Check(s.Cloud.Put(s.T.Context(), o.key, v.build()))
	o.current = v
	return true
}

// uploadHostile uploads an archive that is refused.
func (s *soak) uploadHostile(r *rand.Rand) bool {
	o := s.create(newKey(r))
	defer s.release(o)
	bad := archives().bad
	c := bad[r.IntN(len(bad))]
	want := store.StateRejected
	if c.Violation {
		want = store.StateViolation
	}
	s.put(o, o.newVersion(func() []byte { return c.Bytes }, want, ""))
	return true
}

// archives are those of the tests of archives, by whether they are accepted.
var archives = sync.OnceValue(func() (list struct{ good, bad []tarballs.Case }) {
	for _, c := range tarballs.Cases() {
		switch {
		case len(c.Bytes) == 0 || len(c.Bytes) > 200_000: // what takes long is for its own test
		case c.Strict == "":
			list.good = append(list.good, c)
		default:
			list.bad = append(list.bad, c)
		}
	}
	return list
})

// overwrite uploads another image under a key, or several in a row.
func (s *soak) overwrite(r *rand.Rand) bool {
	s.makeRoom(r)
	o := s.claim(r, func(o *object) bool { return o.current != nil })
	if o == nil {
		return false
	}
	defer s.release(o)
	for range 1 + r.IntN(3) {
		s.put(o, goodVersion(o, r))
	}
	return true
}

// overwriteAndBack overwrites an image by another and that by the first again: in the end
// the key holds what it held before, and so must the host.
func (s *soak) overwriteAndBack(r *rand.Rand) bool {
	s.makeRoom(r)
	o := s.claim(r, func(o *object) bool { return o.current != nil && o.current.want == store.StateActive })
	if o == nil {
		return false
	}
	defer s.release(o)
	before := o.current
	s.put(o, goodVersion(o, r))
	s.put(o, before)
	return true
}

// uploadAgain uploads the same bytes again: the events are duplicates, and nothing comes
// of them.
func (s *soak) uploadAgain(r *rand.Rand) bool {
	o := s.claim(r, func(o *object) bool { return o.current != nil })
	if o == nil {
		return false
	}
	defer s.release(o)
	for range 1 + r.IntN(3) {
		s.put(o, o.current)
	}
	return true
}

// deleteObject deletes an object, and sometimes uploads the same bytes again at once.
func (s *soak) deleteObject(r *rand.Rand) bool {
	o := s.claim(r, func(o *object) bool { return o.current != nil })
	if o == nil {
		return false
	}
	defer s.release(o)
	before := o.current
	in := &s3.DeleteObjectInput{Bucket: aws.String(s.Cloud.Name), Key: aws.String(o.key)}
	_, err := s.Cloud.S3.DeleteObject(s.T.Context(), in)
	s.Check(err)
	o.current = nil
	if r.IntN(2) == 0 {
		s.pause(time.Duration(r.Int64N(int64(3 * time.Second)))) // S3 may have been asked meanwhile, once or twice
		s.put(o, before)
	}
	return true
}
