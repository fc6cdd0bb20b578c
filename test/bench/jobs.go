package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"imagemanager.internal/test/bench/origin"
)

// What a job needs, and gets new for each run.
const (
	needsNothing    = iota
	needsDevice     // that reads as zeros: DEVICE in its arguments
	needsFilesystem // empty, on the device, not mounted
	needsMount      // the same, mounted at DIRECTORY
	needsDirectory  // an empty DIRECTORY
)

// Kinds of jobs.
const (
	ours  = "product"
	peer  = "peer"
	limit = "limit"
)

const (
	theDevice    = "DEVICE"
	theDirectory = "DIRECTORY"
	baseline     = "GNU tar"
)

// job is something that is timed.
type job struct {
	name  string
	kind  string
	needs int
	size  int64  // of the device
	warm  string // a file that is read before, so that it comes from memory
	argv  []string
}

// unpackJobs are all ways to unpack a set, and what bounds them.
func (l *lab) unpackJobs(ctx context.Context, s set) ([]job, error) {
	out, err := l.output(ctx, "product", "engines")
	if err != nil {
		return nil, err
	}
	var engines []string
	if err := json.Unmarshal([]byte(out), &engines); err != nil {
		return nil, err
	}
	layout, err := l.layout(ctx, s)
	if err != nil {
		return nil, err
	}
	all := []job{{name: baseline, kind: peer, needs: needsMount, argv: []string{
		"tar", "--extract", "--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*",
		"--file", s.Path, "--directory", theDirectory,
	}}}
	for _, e := range engines {
		all = append(all, job{
			name: e, kind: ours, needs: needsFilesystem, argv: []string{"product", "unpack", e, s.Path, theDevice},
		})
	}
	all = append(all,
		job{name: "bsdtar", kind: peer, needs: needsMount, argv: []string{
			"bsdtar", "-x", "-p", "--numeric-owner", "-f", s.Path, "-C", theDirectory,
		}},
		job{name: "containerd Apply", kind: peer, needs: needsMount, argv: []string{
			"peers", "apply", s.Path, theDirectory,
		}},
		job{name: "umoci raw unpack", kind: peer, needs: needsMount, argv: []string{
			"umoci", "raw", "unpack", "--image", layout, theDirectory + "/rootfs",
		}},
		job{name: "tar2ext4", kind: peer, needs: needsDevice, argv: []string{"peers", "tar2ext4", s.Path, theDevice}},
		job{name: "write the tar to the device (dd)", kind: limit, needs: needsDevice, argv: []string{
			"dd", "if=" + s.Path, "of=" + theDevice, "bs=2M", "oflag=direct", "conv=fsync,nocreat", "status=none",
		}},
		job{name: "SHA-256 of the tar", kind: limit, argv: []string{"product", "sha256", s.Path}},
		job{name: "walk of the headers", kind: limit, argv: []string{"product", "check", s.Path}},
	)
	for i := range all {
		all[i].size, all[i].warm = s.Device, s.Path
	}
	return all, nil
}

// layout wraps the archive as the only layer of an OCI layout: umoci reads nothing else.
func (l *lab) layout(ctx context.Context, s set) (image string, err error) {
	dir := filepath.Join(l.work, "oci-"+strings.TrimSuffix(filepath.Base(s.Path), ".tar"))
	image = dir + ":image"
	if _, err := os.Stat(filepath.Join(dir, "done")); err == nil {
		return image, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	for _, argv := range [][]string{
		{"umoci", "init", "--layout", dir},
		{"umoci", "new", "--image", image},
		{"umoci", "raw", "add-layer", "--compress=none", "--image", image, s.Path},
	} {
		if _, err := l.output(ctx, argv...); err != nil {
			return "", err
		}
	}
	return image, os.WriteFile(filepath.Join(dir, "done"), nil, 0o600)
}

// downloads are timed against a server of our own, for each number of bytes.
func (l *lab) downloads(ctx context.Context, o options) (all []setResult, err error) {
	url, stop, err := origin.Serve(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	sizes, several, huge := []int64{256 << 20, 1 << 30}, int64(512<<20), o.huge
	if o.smoke {
		sizes, several, huge = []int64{17 << 20}, 17<<20, 0
	}
	product := func(name string, bytes int64, connections, count int) job {
		return job{name: name, kind: ours, needs: needsDirectory, argv: []string{
			"product", "download", url, theDirectory,
			strconv.FormatInt(bytes, 10), strconv.Itoa(connections), strconv.Itoa(count),
		}}
	}
	for _, n := range sizes {
		other := func(name string) job {
			return job{name: name + ", read again for the hash", kind: peer, needs: needsDirectory, argv: []string{
				"peers", name, url, theDirectory + "/file", strconv.FormatInt(n, 10), "5",
			}}
		}
		series, err := l.turns(ctx, []job{
			other("manager"), other("transfermanager"),
			product("this package, 5 connections", n, 5, 1), product("this package, as the daemon does", n, 0, 1),
		})
		if err != nil {
			return nil, err
		}
		all = append(all, setResult{set{Name: strconv.FormatInt(n>>20, 10) + " MiB", Bytes: n}, series})
	}
	for _, n := range []int64{several, huge} {
		if n == 0 {
			continue
		}
		once := *l
		if n == huge {
			once.rounds = 1
		}
		series, err := once.turns(ctx, []job{product("this package, as the daemon does", n, 0, 5)})
		if err != nil {
			return nil, err
		}
		name := "five at once of " + strconv.FormatInt(n>>20, 10) + " MiB"
		all = append(all, setResult{set{Name: name, Bytes: 5 * n}, series})
	}
	return all, nil
}

// tools are the peers' versions, as they tell them.
func (l *lab) tools(ctx context.Context) ([]string, error) {
	var all []string
	for _, argv := range [][]string{
		{"tar", "--version"}, {"bsdtar", "--version"}, {"umoci", "--version"}, {"mke2fs", "-V"},
	} {
		cmd := exec.CommandContext(ctx, l.path(argv[0]), argv[1:]...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(out), "\n")
		first, _, _ = strings.Cut(first, " - ") // bsdtar goes on with its libraries
		all = append(all, strings.TrimSpace(first))
	}
	out, err := l.output(ctx, "peers", "versions")
	if err != nil {
		return nil, err
	}
	return append(all, strings.Split(strings.TrimSpace(out), "\n")...), nil
}

// output runs one of our programs, or one of the machine.
func (l *lab) output(ctx context.Context, argv ...string) (string, error) {
	return command(ctx, l.path(argv[0]), argv[1:]...)
}
