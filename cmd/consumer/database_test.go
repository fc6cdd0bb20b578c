package main

import (
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/internal/store"
)

// withPool puts metadata of a thin pool where `consumer pool create` makes them, in a new
// state directory. Magic number: drivers/md/dm-thin-metadata.c of Linux.
func withPool(t *testing.T) (stateDir string) {
	t.Helper()
	stateDir = t.TempDir()
	t.Setenv("STATE_DIR", stateDir)
	block := make([]byte, 4096)
	binary.LittleEndian.PutUint64(block[32:], 27022010)
	if err := os.Mkdir(filepath.Join(stateDir, "pool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stateDir, "pool", "metadata.img"), block, 0o600); err != nil {
		t.Fatal(err)
	}
	return stateDir
}

// everyCommand needs the database or the pool.
var everyCommand = []string{
	"run", "status", "images", "snapshots", "history 1", "submit images/a.tar", "backfill", "rm 1", "verify 1",
	"snapshot 1", "reconcile", "reconcile --dry-run", "backup b", "quarantine list", "pool status", "pool devices",
	"pool grow --data-size 1TB", "pool locate --data d --metadata m", "pool detach", "pool repair",
}

// The database of a pool is lost: every command leads to its recovery, none away from it,
// and none makes an empty database in its place.
func TestLostDatabase(t *testing.T) {
	t.Setenv("S3_BUCKET", "demo")
	t.Setenv("SQS_QUEUE_URL", "http://127.0.0.1/q")
	dir := withPool(t)
	for _, line := range append(everyCommand, "pool create", "pool create --name other") {
		code, text := perform(t, line)
		if code != 3 || !strings.Contains(text, "`consumer recover`") || !strings.Contains(text, "`consumer backup`") ||
			strings.Contains(text, "wipe") || strings.Contains(text, "pool create") {
			t.Errorf("%s: exit code %d: %s", line, code, text)
		}
		if _, err := os.Stat(databasePath(dir)); err == nil {
			t.Fatalf("%s made a database", line)
		}
	}
}

// Without database and pool every command says what makes them, and makes nothing.
func TestNothingThere(t *testing.T) {
	t.Setenv("S3_BUCKET", "demo")
	t.Setenv("SQS_QUEUE_URL", "http://127.0.0.1/q")
	dir := filepath.Join(t.TempDir(), "none")
	t.Setenv("STATE_DIR", dir)
	for _, line := range everyCommand {
		code, text := perform(t, line)
		if code != 3 || !strings.Contains(text, "`consumer pool create`") || !strings.Contains(text, dir) {
			t.Errorf("%s: exit code %d: %s", line, code, text)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%s made %s", line, dir)
		}
	}
}

// Where there is nothing to rebuild a database from, recover makes nothing.
func TestNothingToRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	t.Setenv("STATE_DIR", dir)
	if code, text := perform(t, "recover"); code != 3 || !strings.Contains(text, "there is no pool: is --state-dir") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the state directory was made")
	}
}

// An empty database, as a command of an earlier version left it, is in nobody's way, and
// one with anything in it is.
func TestEmptyDatabase(t *testing.T) {
	dir := withPool(t)
	s, err := store.Open(t.Context(), databasePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, text := perform(t, "recover"); strings.Contains(text, "move") {
		t.Errorf("an empty database: %s", text)
	}
	if code, text := perform(t, "pool detach"); code != 3 || !strings.Contains(text, "`consumer recover`") {
		t.Errorf("pool detach: exit code %d: %s", code, text)
	}
	if _, _, err := s.Enqueue(t.Context(), store.Object{Bucket: "b", Key: "images/a.tar", ETag: "e"}); err != nil {
		t.Fatal(err)
	}
	if code, text := perform(t, "recover"); code != 1 || !strings.Contains(text, "move") {
		t.Errorf("a database with an image: exit code %d: %s", code, text)
	}
}

// What may not be read is not taken for what does not exist.
func TestNotPermitted(t *testing.T) {
	err := config{StateDir: "/state"}.withoutDatabase(&fs.PathError{Op: "stat", Path: "x", Err: syscall.EACCES})
	var text strings.Builder
	const says = "/state/consumer.db: permission denied"
	if code := report(err, &text); code != 3 || !strings.Contains(text.String(), says) {
		t.Errorf("exit code %d: %s", code, text.String())
	}
}
