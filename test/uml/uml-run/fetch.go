package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tryAgain is how long a failure to fetch a kernel is remembered: many guests may want it
// one after the other, and each would wait for the network.
const tryAgain = 10 * time.Minute

// fetchedKernel returns the release's kernel from the cache. It fetches what is not
// there, or cannot be run: the checkout may have been moved, and the kernel knows where
// its libc is.
func fetchedKernel(rel release, warn io.Writer) (kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, rel.name)
	path := filepath.Join(dir, "linux.uml")
	if k, err := probeKernel(path); err == nil {
		return k, nil
	}
	unlock, err := lock(cache)
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	if k, err := probeKernel(path); err == nil {
		return k, nil // another process fetched it meanwhile
	}
	failed := dir + ".failed"
	if info, err := os.Stat(failed); err == nil && time.Since(info.ModTime()) < tryAgain {
		text, err := os.ReadFile(failed)
		return kernel{}, errors.Join(errors.New(string(text)), err)
	}
	if err := fetch(rel, cache, dir, warn); err != nil {
		_ = os.WriteFile(failed, []byte(err.Error()), 0o644) // without it the next try comes early
		return kernel{}, err
	}
	return probeKernel(path)
}

// cacheDir is CIM_UML_CACHE, else .cache/guest-kernels beside the directory of this
// program: in the checkout, for bin/uml-run.
func cacheDir() (string, error) {
	dir := os.Getenv("CIM_UML_CACHE")
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(filepath.Dir(self), "..", ".cache", "guest-kernels")
	}
	return filepath.Abs(dir)
}

// lock lets one process at a time fetch.
func lock(cache string) (func(), error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// fetch has apt fetch the kernel's package and its libc from the Debian release, check
// their signatures, and unpack them: by mmdebstrap, whose lists, keys and settings are
// its own. Nothing is installed, and nothing of the host's apt is changed.
func fetch(rel release, cache, dir string, warn io.Writer) error {
	for _, tool := range []string{"mmdebstrap", "patchelf"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("cannot be fetched without %s: "+
				"apt-get install mmdebstrap patchelf debian-archive-keyring", tool)
		}
	}
	if err := removeAll(filepath.Join(cache, "fetch-*")); err != nil { // of a run that was killed
		return err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(warn, "uml-run: fetching the kernel of Debian %s\n", rel.suite)
	// The lists of a release that is not stable expire within a week. A mirror that is
	// behind is good enough for tests; who signed them is checked all the same.
	if err := runTool("mmdebstrap", "--quiet", "--variant=extract", "--include=user-mode-linux",
		`--aptopt=Acquire::Check-Valid-Until "false"`, rel.suite, filepath.Join(tmp, "root")); err != nil {
		return err
	}
	if err := arrange(filepath.Join(tmp, "root"), filepath.Join(tmp, "kernel"), dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "kernel"), dir)
}

func removeAll(pattern string) error {
	paths, err := filepath.Glob(pattern)
	for _, path := range paths {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// arrange takes what a guest needs out of the unpacked packages. The kernel wants the
// libc of its own release, which may be newer than the host's; final is where both will
// lie.
func arrange(root, to, final string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for name, from := range map[string]string{
		"linux.uml":            "usr/bin",
		"modules":              "usr/lib/uml",
		"copyright":            "usr/share/doc/user-mode-linux",
		"libc.so.6":            "usr/lib/x86_64-linux-gnu",
		"ld-linux-x86-64.so.2": "usr/lib/x86_64-linux-gnu",
	} {
		path := filepath.Join(root, from, name)
		if _, err := os.Stat(path); err != nil { // Debian 12 packs its libc in /lib
			path = filepath.Join(root, strings.TrimPrefix(from, "usr/"), name)
		}
		if err := os.Rename(path, filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return runTool("patchelf", "--set-interpreter", filepath.Join(final, "ld-linux-x86-64.so.2"), "--set-rpath", final,
		filepath.Join(to, "linux.uml"))
}

// runTool runs a program; its error has the last line of what the program printed.
func runTool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput() //nolint:noctx // a user may interrupt it
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines { // apt says the cause first, mmdebstrap that it failed
		if strings.HasPrefix(line, "E: ") {
			return fmt.Errorf("%s: %w: %s", name, err, line)
		}
	}
	return fmt.Errorf("%s: %w: %s", name, err, lines[len(lines)-1])
}
