package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// test is one test of a package, as it is told to a guest.
type test struct {
	Package string // import path
	Name    string
	Dir     string // the package's, where the test runs
	Binary  string
	alone   bool
}

// id is unique and can be a file's name.
func (t test) id() string { return filepath.Base(t.Binary) + "." + t.Name }

// listTests compiles the packages' tests into a directory and lists them, in the order of
// the packages and of the files.
func listTests(ctx context.Context, o options, binaries string) ([]test, error) {
	run, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	skip, err := regexp.Compile(o.skip)
	if err != nil {
		return nil, fmt.Errorf("-skip: %w", err)
	}
	alone, err := testsOf(ctx, o.alone, binaries)
	if err != nil {
		return nil, err
	}
	for i := range alone {
		alone[i].alone = true
	}
	others, err := testsOf(ctx, o.packages, binaries)
	if err != nil {
		return nil, err
	}
	var chosen []test
	for _, t := range append(alone, others...) {
		if run.MatchString(t.Name) && (o.skip == "" || !skip.MatchString(t.Name)) {
			chosen = append(chosen, t)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no tests match -run %s", o.run)
	}
	return chosen, nil
}

func testsOf(ctx context.Context, patterns []string, binaries string) ([]test, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	out, err := output(ctx, "", "go",
		append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var tests []test
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); err != nil {
			return nil, err
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 {
			continue
		}
		binary := filepath.Join(binaries, strings.ReplaceAll(p.ImportPath, "/", "-"))
		if _, err := output(ctx, "", "go", "test", "-c", "-o", binary, p.ImportPath); err != nil {
			return nil, err
		}
		names, err := output(ctx, p.Dir, binary, "-test.list", ".")
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Fields(names) {
			if !strings.HasPrefix(name, "Benchmark") {
				tests = append(tests, test{Package: p.ImportPath, Name: name, Dir: p.Dir, Binary: binary})
			}
		}
	}
	return tests, nil
}

// output runs a program and returns what it prints; what it says is shown where it fails.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
