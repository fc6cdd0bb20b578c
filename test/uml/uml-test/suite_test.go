package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Every test is taken once, however many guests want one.
func TestTake(t *testing.T) {
	queue := t.TempDir()
	for _, dir := range []string{waitingDir, takenDir, doneDir} {
		check(t, os.Mkdir(filepath.Join(queue, dir), 0o755))
	}
	var tests []test
	for i := range 200 {
		tests = append(tests, test{Package: "p", Name: fmt.Sprintf("Test%03d", i), Binary: "/b"})
	}
	check(t, enqueue(queue, tests))
	var mu sync.Mutex
	var taken []string
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				got, found, err := take(queue)
				if err != nil || !found {
					if err != nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				taken = append(taken, got.Name)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(taken)
	if n := len(taken); n != len(tests) || len(slices.Compact(taken)) != n {
		t.Errorf("%d tests taken, or one of them twice; want %d", n, len(tests))
	}
}

// A suite has passed when every test has a result and none failed or was skipped.
func TestReport(t *testing.T) {
	one, two := test{Package: "p", Name: "TestOne", Binary: "/p"}, test{Package: "q", Name: "TestTwo", Binary: "/q"}
	for name, c := range map[string]struct {
		results  []result
		failures []string
		passes   bool
		says     string
	}{
		"all passed": {
			results: []result{{test: one}, {test: two}}, passes: true,
			says: "2 passed, 0 failed, 0 skipped",
		},
		"one failed": {results: []result{{test: one, Code: 1}, {test: two}}, says: "1 passed, 1 failed, 0 skipped"},
		"one skipped": {
			results: []result{{test: one}, {test: two, Skipped: true}},
			says:    "1 passed, 0 failed, 1 skipped",
		},
		"one is gone": {results: []result{{test: one}}, says: "no result: q TestTwo"},
		"a guest fails": {
			results: []result{{test: one}, {test: two}}, failures: []string{"left behind"},
			says: "2 passed",
		},
	} {
		r := report{tests: []test{one, two}, results: c.results, failures: c.failures}
		var out bytes.Buffer
		if err := r.print(&out, 0); (err == nil) != c.passes || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %v, %s", name, err, &out)
		}
	}
}

// The whole of it, in guests: tests that pass, fail, are skipped, and bring their kernel
// down.
func TestSuite(t *testing.T) {
	t.Parallel()
	bin, module := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.24\n",
		"a/a_test.go": `package a
import "testing"
func TestPass(t *testing.T) {}
func TestFail(t *testing.T) { t.Fatal("as it must") }
func TestSkip(t *testing.T) { t.Skip("why not") }
func TestNotChosen(t *testing.T) { t.Fatal("it was") }
`,
		"b/b_test.go": `package b
import ("os"; "testing")
func TestBoots(t *testing.T) {
	if os.Getenv("CIM_BOOT") == "0" {
		_ = os.WriteFile(os.Getenv("CIM_BOOT_DIR") + "/down", nil, 0o600)
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	}
	t.Log("boot", os.Getenv("CIM_BOOT"))
}
`,
	} {
		path := filepath.Join(module, file)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o600))
	}
	build := exec.Command("go", "build", "-o", bin, ".", "../uml-run")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cache, err := filepath.Abs("../../../.cache/guest-kernels")
	check(t, err)
	cmd := exec.Command(filepath.Join(bin, "uml-test"), "-guests", "2", "-skip", "NotChosen", "-v", "-alone", "./b",
		"./a")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CIM_UML_CACHE="+cache)
	out, err := cmd.CombinedOutput()
	for _, want := range []string{
		"as it must", "why not", "skipped: m/a TestSkip", "boot 1", "FAIL\tm/a", "ok  \tm/b",
		"2 passed, 1 failed, 1 skipped",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the output", want)
		}
	}
	if cmd.ProcessState.ExitCode() != 1 || strings.Contains(string(out), "it was") {
		t.Errorf("%v\n%s", err, out)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
