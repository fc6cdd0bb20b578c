package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
)

// use is a user of a snapshot: mounts it, finds all that was written to it before, writes
// more, and leaves it, or keeps it mounted for a while.
func (s *soak) use(r *rand.Rand) bool {
	o, v := s.claimActive(r)
	if o == nil {
		return false
	}
	defer s.release(o)
	if len(v.snaps) == 0 {
		return false
	}
	sn := v.snaps[r.IntN(len(v.snaps))]
	stays := sn.mount == nil && r.IntN(3) == 0
	if !s.mount(v, sn) {
		return true
	}
	if s.checkReadable(v, sn) {
		name := fmt.Sprintf("rootfs/written-%016x", r.Uint64())
		s.write(v, sn, name, strings.Repeat(name, 1+r.IntN(2000)))
	}
	if !stays {
		s.unmount(v, sn)
	}
	return true
}

// mount mounts a snapshot that is not, and reports whether it could.
func (s *soak) mount(v *version, sn *snap) bool {
	s.T.Helper()
	if sn.mount != nil {
		return true
	}
	if !s.mounts(1) {
		return false
	}
	m, err := devmapper.MountDetached(sn.path, ext4.MountBuild)
	if err != nil {
		s.mounts(-1)
		s.failVersion(v, "a user cannot mount a snapshot of image %d: %v", v.image, err)
		return false
	}
	sn.mount = m
	return true
}

func (s *soak) unmount(v *version, sn *snap) {
	s.T.Helper()
	if err := sn.mount.Close(); err != nil {
		s.failVersion(v, "a user leaves a snapshot of image %d: %v", v.image, err)
	}
	sn.mount = nil
	s.mounts(-1)
}

// checkReadable reports whether a mounted snapshot has what its user wrote, and what was
// uploaded.
func (s *soak) checkReadable(v *version, sn *snap) bool {
	s.T.Helper()
	root, err := sn.root()
	s.Check(err)
	defer root.Close()
	want := map[string]string{"rootfs/etc/hello": v.hello}
	for name, text := range sn.writes {
		want[name] = text
	}
	for name, text := range want {
		got, err := root.ReadFile(name)
		if text != "" && (err != nil || string(got) != text) {
			s.failVersion(v, "image %d, snapshot %s: its user has in %s %d bytes %.20q, not the %d that were there: %v",
				v.image, sn.path, name, len(got), got, len(text), err)
			return false
		}
	}
	return true
}

func (s *soak) write(v *version, sn *snap, name, text string) {
	s.T.Helper()
	root, err := sn.root()
	s.Check(err)
	defer root.Close()
	if err = root.WriteFile(name, []byte(text), 0o600); err == nil {
		err = sn.mount.Sync()
	}
	if err != nil {
		s.failVersion(v, "a user writes to %s: %v", sn.path, err)
		return
	}
	sn.writes[name] = text
}

func (sn *snap) root() (*os.Root, error) {
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", sn.mount.Root().Fd()))
}

// unmountAll unmounts whatever users have mounted.
func (s *soak) unmountAll() {
	for _, o := range s.objects {
		for _, v := range o.versions {
			for _, sn := range v.snaps {
				if sn.mount != nil {
					s.unmount(v, sn)
				}
			}
		}
	}
}

// checkAllFiles mounts every snapshot once more and checks that all that was ever written
// is there. It returns the number of files.
func (s *soak) checkAllFiles() (files int) {
	for _, o := range s.objects {
		for _, v := range o.versions {
			for _, sn := range v.snaps {
				if v.broken || !s.mount(v, sn) {
					continue
				}
				if s.checkReadable(v, sn) {
					files += len(sn.writes)
				}
				s.unmount(v, sn)
			}
		}
	}
	return files
}
