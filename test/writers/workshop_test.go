package writers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The trees that are written. All but debian are made by tree.sh.
const (
	plain  = "plain"
	full   = "full"
	debian = "debian"
)

// workshop is where the writers work.
type workshop struct {
	dir      string
	cache    string // inputs that the Makefile has fetched and built
	registry string // its address
	archives int    // written so far
}

// newWorkshop starts a registry and makes what the writers write.
func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	cache, err := filepath.Abs("../../.cache")
	check(t, err)
	if inMemory(t) {
		t.Setenv("TMPDIR", memory)
	}
	w := &workshop{dir: t.TempDir(), cache: cache}
	t.Setenv("PATH", filepath.Join(cache, "image-tools")+":"+os.Getenv("PATH"))
	w.registry = serveRegistry(t)
	for _, tree := range []string{plain, full} {
		check(t, os.Mkdir(filepath.Join(w.dir, tree), 0o755))
		w.run(t, tree, `./prepare.sh "$KIND" "$DIR"`)
	}
	return w
}

// memory is a file system in memory: the tests are about what is written, not how fast a
// disk is.
const memory = "/dev/shm"

// inMemory reports whether there is one with enough space, which keeps attributes user.*:
// tmpfs does from Linux 6.6.
func inMemory(t *testing.T) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(memory, &st); err != nil || st.Bavail*uint64(st.Bsize) < 4<<30 {
		return false
	}
	f, err := os.CreateTemp(memory, "probe")
	check(t, err)
	keeps := unix.Fsetxattr(int(f.Fd()), "user.probe", []byte("x"), 0) == nil
	check(t, errors.Join(f.Close(), os.Remove(f.Name())))
	return keeps
}

// serveRegistry runs a registry for the time of the test, and returns its address.
func serveRegistry(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "crane", "registry", "serve", "--address=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewReader(stderr)
	line, err := lines.ReadString('\n')
	check(t, err)
	var drained sync.WaitGroup
	drained.Go(func() { _, _ = io.Copy(io.Discard, lines) }) // its log, until it ends
	t.Cleanup(func() {                                       // the context has ended, so it is killed
		drained.Wait()
		_ = cmd.Wait()
	})
	port := regexp.MustCompile(`port (\d+)`).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("crane registry serve: %s", line)
	}
	return "localhost:" + port[1]
}

// run runs a script that must succeed, with the names of what belongs to a tree.
func (w *workshop) run(t *testing.T, tree, script string, env ...string) {
	t.Helper()
	dir := filepath.Join(w.dir, tree)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "CACHE="+w.cache, "KIND="+tree, "DIR="+dir,
		"TREE="+dir+"/tree", "BUNDLE="+dir+"/bundle", "REPOSITORY="+dir+"/repository", "LAYOUT="+dir+"/layout",
		"UNPACKED="+dir+"/unpacked", "APP="+dir+"/app", "CONTAINERS_STORAGE_CONF="+dir+"/storage.conf",
		"IMAGE="+w.registry+"/"+tree, "KO_DOCKER_REPO="+w.registry+"/app-"+tree,
		"KO_DEFAULTBASEIMAGE="+w.registry+"/"+tree)
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s tree: %s\n%v\n%s", tree, script, err, out)
	}
}

// write has an archive written and returns its path.
func (w *workshop) write(t *testing.T, tool writer, tree string) string {
	t.Helper()
	w.archives++
	work := filepath.Join(w.dir, fmt.Sprint("work", w.archives))
	check(t, os.Mkdir(work, 0o755))
	w.run(t, tree, tool.script, "WORK="+work, "OUT="+work+"/out.tar")
	return filepath.Join(work, "out.tar")
}

// version returns the version that a tool says it has.
func version(t *testing.T, tool string) string {
	t.Helper()
	command := map[string][]string{
		"GNU tar": {"tar", "--version"}, "busybox": {"busybox"}, "Python": {"python3", "--version"},
		"crane": {"crane", "version"}, "ko": {"ko", "version"},
	}[tool]
	if command == nil {
		command = []string{tool, "--version"}
	}
	out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
	number := regexp.MustCompile(`\d+(\.\d+)+`).Find(out)
	if number == nil {
		t.Fatalf("%s: %v\n%s", tool, err, out)
	}
	return string(number)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
