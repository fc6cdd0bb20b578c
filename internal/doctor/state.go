package doctor

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/provision"
)

// stateDir looks at the mode of the state directory: archives and database are nobody
// else's.
func (m *Machine) stateDir() Finding {
	const check = "state-dir"
	info, err := os.Stat(m.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(check, "correct STATE_DIR, or run `consumer pool create`, which makes it", "there is no %s",
			m.StateDir)
	case err != nil:
		return warn(check, notRoot, "%s cannot be looked at: %v", m.StateDir, errors.Unwrap(err))
	case !info.IsDir():
		return fail(check, "correct STATE_DIR", "%s is not a directory", m.StateDir)
	case info.Mode().Perm()&0o077 != 0:
		return warn(check, "chmod 700 "+m.StateDir, "%s has mode %#o: others may look into it", m.StateDir,
			info.Mode().Perm())
	}
	if owner, is := info.Sys().(*syscall.Stat_t); is && owner.Uid != 0 && isRoot() {
		return warn(check, "chown root "+m.StateDir, "%s is owned by user %d", m.StateDir, owner.Uid)
	}
	return ok(check, "%s, mode %#o", m.StateDir, info.Mode().Perm())
}

// disk holds the free space under the state directory to what the daemon keeps free.
func (m *Machine) disk() Finding {
	const check = "disk"
	_, free, err := provision.FreeUnder(m.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return skipped("there is no "+m.StateDir, check)[0]
	case err != nil:
		return warn(check, notRoot, "the space under %s is not seen: %v", m.StateDir, err)
	case free < m.MinFreeDisk:
		return m.tooFull(check, m.StateDir, free)
	}
	return ok(check, "%s are free under %s", size(free), m.StateDir)
}

func (m *Machine) tooFull(check, dir string, free int64) Finding {
	return fail(check, "make room under "+dir+", or lower STATE_MIN_FREE",
		"%s are free under %s, and the daemon takes nothing below %s", size(free), dir, size(m.MinFreeDisk))
}

// size is a number of bytes as people read it.
func size(bytes int64) string { return units.BytesSize(float64(bytes)) }
