package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
)

// A pool create that fails leaves nothing behind and pins nothing: other options are
// taken the next time. Those of a pool that is there cannot be changed.
func TestCreateFailsThenSucceeds(t *testing.T) {
	taken := newHost(t)
	h := bareHost(t)
	h.OpenLog(filepath.Join(h.dir(), "daemon.log"))
	h.T.Cleanup(h.Close)
	if out, code := h.Try("pool", "create", "--name", poolName(t), "--data-size", "1GiB"); code == 0 {
		t.Fatalf("the name of another pool was taken: %s", out)
	}
	for _, file := range []string{"consumer.db", "consumer.db-wal", "pool/data.img", "pool/metadata.img"} {
		if _, err := os.Stat(filepath.Join(h.State, file)); err == nil {
			t.Errorf("the failed command left %s", file)
		}
	}
	second := poolName(t) + "-2"
	h.Consumer("pool", "create", "--name", second, "--data-size", "2GiB", "--thins", "100")
	h.Consumer("pool", "create", "--name", second, "--data-size", "2GiB", "--thins", "100") // as a script does
	for _, other := range [][]string{
		{"--name", "third"},
		{"--data-size", "5GiB"},
		{"--block-size", "128KiB"},
		{"--data", "/dev/loop0", "--metadata", "/dev/loop1"},
	} {
		out, code := h.Try(append([]string{"pool", "create"}, other...)...)
		if code != 2 || !strings.Contains(out, "the pool is there already") {
			t.Errorf("%v: exit code %d: %s", other, code, out)
		}
	}
	taken.Look()
}

// The database is lost: run and pool create change nothing and name recover, which then
// finds every image. Nor is an empty database in its way.
func TestLostDatabaseLeadsToRecover(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst()
	h.WaitDrained()
	h.Stop()
	h.loseDatabase()
	for _, line := range []string{"run", "pool create", "pool create --name other"} {
		out, code := h.Try(strings.Fields(line)...)
		if code != 3 || !strings.Contains(out, "`consumer recover`") {
			t.Errorf("%s: exit code %d: %s", line, code, out)
		}
	}
	h.Check(os.WriteFile(h.Database(), emptyDatabase(t), 0o600))
	h.Consumer("recover", "--name", poolName(t))
	h.reopen()
	h.Start()
	h.Stop()
	h.Look()
}

// emptyDatabase returns a database in which nothing was recorded.
func emptyDatabase(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "consumer.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
