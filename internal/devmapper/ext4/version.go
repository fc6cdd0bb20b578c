package ext4

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
)

func atLeast(v, least [3]int) bool {
	for i := range v {
		if v[i] != least[i] {
			return v[i] > least[i]
		}
	}
	return true
}

// newest is the version of the program that was last asked for it.
var newest versions

// versions remembers the version of a program.
type versions struct {
	mu      sync.Mutex
	file    os.FileInfo // of the program that was asked; nil before the first
	version [3]int
}

// of returns the version of mke2fs at path. It asks the program once, and again when its
// file has changed: e2fsprogs may be upgraded under a daemon.
func (v *versions) of(ctx context.Context, path string) ([3]int, error) {
	file, err := os.Stat(path)
	if err != nil {
		return [3]int{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.file != nil && os.SameFile(v.file, file) && v.file.Size() == file.Size() &&
		v.file.ModTime().Equal(file.ModTime()) {
		return v.version, nil
	}
	version, err := askVersion(ctx, path)
	if err != nil {
		return version, err
	}
	v.file, v.version = file, version
	return version, nil
}

func askVersion(ctx context.Context, path string) ([3]int, error) {
	out, err := run(ctx, nil, path, "-V")
	if err != nil {
		return [3]int{}, err
	}
	v, ok := parseVersion(out)
	if !ok {
		return v, fmt.Errorf("%s -V: malformed version %q", path, out)
	}
	return v, nil
}

var versionPattern = regexp.MustCompile(`^mke2fs (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

// parseVersion reads `mke2fs 1.47.0 (5-Feb-2023)`. The third number may be missing, and
// letters may follow.
func parseVersion(out string) (v [3]int, ok bool) {
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return v, false
	}
	for i := range v {
		if m[i+1] != "" {
			v[i], _ = strconv.Atoi(m[i+1]) // at most four digits
		}
	}
	return v, true
}
