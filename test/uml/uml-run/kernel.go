package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// release is a kernel that can be asked for by name, and the Debian release that has it.
type release struct{ name, suite string }

// releases are in order of age. The kernel of a release that is not stable yet moves on
// under its name: 7.2 is what forky has.
var releases = []release{
	{name: "6.1", suite: "bookworm"},
	{name: "6.12", suite: "trixie"},
	{name: "7.2", suite: "forky"},
}

// defaultKernel is the fastest of them.
const defaultKernel = "7.2"

// kernel is a user-mode-linux that can be booted.
type kernel struct {
	path    string
	version string // such as 7.2.7
	modules string // the directory with its modules.dep
	seccomp bool   // whether it can run processes by seccomp, several times faster than by ptrace
	preload string // a library that it is loaded with; empty: none
}

// String names the kernel in messages.
func (k kernel) String() string { return fmt.Sprintf("user-mode-linux %s (%s)", k.version, k.path) }

// chooseKernel returns the kernel that CIM_UML_KERNEL asks for. One that can be neither
// found nor fetched gives way to the installed one, of which warn is told.
func chooseKernel(warn io.Writer) (kernel, error) {
	want := os.Getenv("CIM_UML_KERNEL")
	if want == "" {
		want = defaultKernel
	}
	if strings.Contains(want, "/") {
		return probeKernel(want)
	}
	rel, err := findRelease(want)
	if err != nil {
		return kernel{}, err
	}
	installed, missing := installedKernel()
	if missing == nil && strings.HasPrefix(installed.version+".", rel.name+".") {
		return installed, nil
	}
	fetched, err := fetchedKernel(rel, warn)
	switch {
	case err == nil:
		return fetched, nil
	case missing == nil:
		fmt.Fprintf(warn, "uml-run: kernel %s: %v; the installed %s is used\n", rel.name, err, installed.version)
		return installed, nil
	}
	return kernel{}, fmt.Errorf("kernel %s: %w; and %w", rel.name, err, missing)
}

func findRelease(name string) (release, error) {
	var names []string
	for _, r := range releases {
		if r.name == name {
			return r, nil
		}
		names = append(names, r.name)
	}
	return release{}, fmt.Errorf("CIM_UML_KERNEL=%s: neither %s nor the path of a user-mode-linux kernel",
		name, strings.Join(names, ", "))
}

func installedKernel() (kernel, error) {
	path, err := exec.LookPath("linux.uml")
	if err != nil {
		return kernel{}, errors.New("user-mode-linux is not installed: apt-get install user-mode-linux")
	}
	return probeKernel(path)
}

// probeKernel asks the kernel what it is and finds its modules: in the directory modules
// beside it, or where Debian's package has them.
func probeKernel(path string) (kernel, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return kernel{}, err
	}
	version, err := exec.Command(path, "--version").Output() //nolint:noctx // prints and ends
	if err != nil {
		return kernel{}, fmt.Errorf("%s --version: %w", path, err)
	}
	help, err := exec.Command(path, "--help").CombinedOutput() //nolint:noctx // prints and ends
	if len(help) == 0 {
		return kernel{}, fmt.Errorf("%s --help: %w", path, err) // its exit code is 1 in all versions
	}
	k := kernel{
		path: path, version: strings.TrimSpace(string(version)),
		seccomp: strings.Contains(string(help), "\nseccomp="),
	}
	if !k.seccomp {
		k.preload = besideMe("uml-xstate.so")
	}
	for _, dir := range []string{filepath.Join(filepath.Dir(path), "modules"), "/usr/lib/uml/modules"} {
		k.modules = filepath.Join(dir, k.version)
		if _, err := os.Stat(filepath.Join(k.modules, "modules.dep")); err == nil {
			return k, nil
		}
	}
	return kernel{}, fmt.Errorf("%s: no modules of %s in modules/ beside it nor in /usr/lib/uml/modules",
		path, k.version)
}

// besideMe returns the path of a file in the directory of this program, empty where there
// is none.
func besideMe(name string) string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// arguments are those of the kernel's command line that depend on the kernel.
func (k kernel) arguments() []string {
	if k.seccomp {
		return []string{"seccomp=on"}
	}
	return nil
}

// environment is the kernel's own, not that of the guest's programs.
func (k kernel) environment() []string {
	if k.preload != "" {
		return []string{"LD_PRELOAD=" + k.preload}
	}
	return nil
}

// programEnvironment is for the guest's programs. Kernels before 6.14 lose the AVX-512
// registers of a process when a signal is delivered to it: libc and Go are told to do
// without, or they compute wrong results once in a while.
func (k kernel) programEnvironment() []string {
	if k.seccomp {
		return nil
	}
	return []string{
		"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ",
		"GODEBUG=cpu.avx512f=off,cpu.avx512vl=off,cpu.avx512bw=off,cpu.avx512cd=off,cpu.avx512dq=off",
	}
}
