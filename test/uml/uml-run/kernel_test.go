package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
)

// script writes a program of the shell.
func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fakeKernel makes what looks like a kernel of that version, with modules beside it.
func fakeKernel(t *testing.T, path, version string) {
	t.Helper()
	script(t, path, `case $1 in --version) echo `+version+`;; --help) echo help; echo "seccomp=on";; esac`)
	script(t, filepath.Join(filepath.Dir(path), "modules", version, "modules.dep"), "")
}

// fakeTools makes an mmdebstrap that counts its calls and unpacks such a kernel, or
// fails.
func fakeTools(t *testing.T, bin, version string, fails bool) {
	t.Helper()
	script(t, filepath.Join(bin, "patchelf"), "exit 0")
	text := "echo called >> " + bin + "/calls\n"
	if fails {
		script(t, filepath.Join(bin, "mmdebstrap"), text+"echo 'E: no network'; echo 'mmdebstrap failed'; exit 1")
		return
	}
	fakeKernel(t, filepath.Join(bin, "made", "linux.uml"), version)
	script(t, filepath.Join(bin, "mmdebstrap"), text+`for dir; do :; done
mkdir -p $dir/usr/bin $dir/usr/lib/uml $dir/lib/x86_64-linux-gnu $dir/usr/share/doc/user-mode-linux
cp `+bin+`/made/linux.uml $dir/usr/bin
cp -r `+bin+`/made/modules $dir/usr/lib/uml
touch $dir/lib/x86_64-linux-gnu/libc.so.6 $dir/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
touch $dir/usr/share/doc/user-mode-linux/copyright
`)
}

// The kernel asked for is taken from the machine, the cache or Debian, in this order; one
// that cannot be had gives way to the installed one, and somebody is told.
func TestChooseKernel(t *testing.T) {
	for name, c := range map[string]struct {
		want, installed, cached, fetched string
		noTools                          bool
		version, warning, err            string
		calls                            int // of mmdebstrap, when the kernel is asked for twice
	}{
		"installed": {want: "6.12", installed: "6.12.113", version: "6.12.113"},
		"6.1 is not 6.12": {
			want: "6.1", installed: "6.12.113", fetched: "6.1.176", version: "6.1.176",
			warning: "fetching", calls: 1,
		},
		"the default, cached": {installed: "6.1.176", cached: "7.2.7", version: "7.2.7"},
		"fetched once": {
			want: "7.2", fetched: "7.2.7", version: "7.2.7",
			warning: "fetching the kernel of Debian forky", calls: 1,
		},
		"a release that went on": {want: "7.2", fetched: "7.4.1", version: "7.4.1", warning: "fetching", calls: 1},
		"off-line": {
			want: "7.2", installed: "6.1.176", version: "6.1.176",
			warning: "E: no network; the installed 6.1.176 is used", calls: 1,
		},
		"off-line, nothing": {want: "7.2", warning: "fetching", err: "user-mode-linux is not installed", calls: 1},
		"no tools to fetch it": {
			want: "7.2", installed: "6.1.176", noTools: true, version: "6.1.176",
			warning: "apt-get install mmdebstrap",
		},
		"no such name": {
			want: "5.10", installed: "6.1.176",
			err: "CIM_UML_KERNEL=5.10: neither 6.1, 6.12, 7.2 nor the path",
		},
		"no such path": {want: "/no/such/kernel", installed: "6.1.176", err: "/no/such/kernel --version"},
	} {
		t.Run(name, func(t *testing.T) {
			bin, cache := t.TempDir(), t.TempDir()
			t.Setenv("PATH", bin)
			t.Setenv("CIM_UML_CACHE", cache)
			t.Setenv("CIM_UML_KERNEL", c.want)
			if c.installed != "" {
				fakeKernel(t, filepath.Join(bin, "linux.uml"), c.installed)
			}
			if c.cached != "" {
				fakeKernel(t, filepath.Join(cache, defaultKernel, "linux.uml"), c.cached)
			}
			if !c.noTools {
				fakeTools(t, bin, c.fetched, c.fetched == "")
			}
			var warning bytes.Buffer
			k, err := chooseKernel(&warning)
			checkChoice(t, k, err, c.version, c.err)
			if !strings.Contains(warning.String(), c.warning) || c.warning == "" && warning.Len() > 0 {
				t.Errorf("said %q, want %q", &warning, c.warning)
			}
			again, err := chooseKernel(&warning)
			checkChoice(t, again, err, c.version, c.err)
			calls, _ := os.ReadFile(filepath.Join(bin, "calls"))
			if n := bytes.Count(calls, []byte("called")); n != c.calls {
				t.Errorf("asked for twice, the kernel was fetched %d times, want %d", n, c.calls)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "fetch-*")); len(left) > 0 {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
}

func checkChoice(t *testing.T, k kernel, err error, version, text string) {
	t.Helper()
	if k.version != version || text == "" && err != nil || text != "" &&
		(err == nil || !strings.Contains(err.Error(), text)) {
		t.Errorf("got %+v, %v; want version %q, error %q", k, err, version, text)
	}
}

// A kernel that cannot run processes by seccomp on this host runs them by ptrace.
func TestNoSeccomp(t *testing.T) {
	t.Parallel()
	if devmapper.Probe() == nil {
		return // natively there is no guest
	}
	k, err := chooseKernel(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if !k.seccomp {
		t.Skipf("%s knows only ptrace", k)
	}
	path := filepath.Join(t.TempDir(), "linux.uml")
	script(t, path, `case "$*" in *seccomp=on*) exit 1;; esac; exec `+k.path+` "$@"`)
	if err := os.Symlink(filepath.Dir(k.modules), filepath.Join(filepath.Dir(path), "modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(build(t), "--", "/bin/echo", "ran")
	cmd.Env = append(os.Environ(), "CIM_UML_KERNEL="+path)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if code := exitCodeOf(t, cmd.Run()); code != 0 || out.String() != "ran\n" ||
		!strings.Contains(errOut.String(), "it runs by ptrace") {
		t.Errorf("exit code %d, output %q, standard error %q", code, &out, &errOut)
	}
}
