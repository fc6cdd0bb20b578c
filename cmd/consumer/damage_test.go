package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
)

// stateWith makes a state directory with a journal of so many images and returns the path
// of its database.
func stateWith(t *testing.T, keys ...string) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("STATE_DIR", dir)
	s, err := store.Open(t.Context(), databasePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if _, _, err := s.Enqueue(t.Context(),
			store.Object{Bucket: "b", Key: key, ETag: string(rune('a' + i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return databasePath(dir)
}

// perform runs a command line and returns its exit code and all that it printed.
func perform(t *testing.T, line string) (code int, text string) {
	t.Helper()
	return performWords(t, strings.Fields(line)...)
}

func performWords(t *testing.T, words ...string) (code int, text string) {
	t.Helper()
	var out bytes.Buffer
	code = report(dispatch(t.Context(), words, &out), &out)
	return code, out.String()
}

// Every command refuses a damaged database, says which and what to do, and leaves it as
// it is.
func TestDamagedDatabase(t *testing.T) {
	t.Setenv("S3_BUCKET", "demo")
	t.Setenv("SQS_QUEUE_URL", "http://127.0.0.1/q")
	for harm, commands := range map[string][]string{
		"all": {
			"run", "status", "images", "snapshots", "history 1", "submit images/a.tar", "rm 1", "verify 1",
			"pool create", "pool status", "backup " + filepath.Join(t.TempDir(), "b"),
		},
		"page": {"run", "pool create", "backup " + filepath.Join(t.TempDir(), "b")}, // those that read the whole file
	} {
		path := stateWith(t, "images/a.tar")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if harm == "all" {
			text = bytes.Repeat([]byte("no database "), 1000)
		} else {
			copy(text[len(text)-4096:], bytes.Repeat([]byte{0xff}, 4096)) // one page
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, line := range commands {
			code, says := perform(t, line)
			for _, want := range []string{path, "consumer backup", "consumer recover", "consumer.db-wal"} {
				if code != 3 || !strings.Contains(says, want) {
					t.Errorf("%s (%s): exit code %d, %q, want 3 and %q", line, harm, code, says, want)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, text) {
				t.Errorf("%s (%s): the file was changed, %v", line, harm, err)
			}
		}
	}
}

// A backup is a database that takes the other's place; it replaces a file only when told
// to.
func TestBackupAndRestore(t *testing.T) {
	stateWith(t, "images/a.tar", "images/b.tar")
	file := filepath.Join(t.TempDir(), "copy.db")
	if code, says := perform(t, "backup "+file); code != 0 || !strings.Contains(says, "up to event 2") {
		t.Errorf("backup: %d %s", code, says)
	}
	if code, says := perform(t, "backup "+file); code != 1 || !strings.Contains(says, "already exists") {
		t.Errorf("backup to an existing file: %d %s", code, says)
	}
	if code, says := perform(t, "backup --json --force "+file); code != 0 || !strings.Contains(says, `"seq": 2`) {
		t.Errorf("backup --force: %d %s", code, says)
	}
	for _, line := range []string{"backup", "backup a b"} {
		if code, says := perform(t, line); code != 2 {
			t.Errorf("%s: %d %s, want 2", line, code, says)
		}
	}
	other := stateWith(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, says := perform(t, "images"); code != 0 || !strings.Contains(says, "images/b.tar") {
		t.Errorf("restored: %d %s", code, says)
	}
}

// What rm is to remove is named without doubt, or refused.
func TestRmNames(t *testing.T) {
	stateWith(t, "images/a.tar", "images/a.tar", "images/b.tar")
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"rm":                   {2, "takes one <key|image|snapshot> or more"},
		"rm images/a.tar":      {2, "[1 2]"},
		"rm 3 99":              {5, "99"},
		"rm snapshot:7 3":      {5, "consumer snapshots"},
		"rm images/none.tar":   {5, "consumer images"},
		"rm 99":                {5, "99"},
		"rm snapshot:x":        {2, "snapshot:ID"},
		"rm snapshot:7":        {5, "consumer snapshots"},
		"rm /dev/mapper/cim-x": {5, "consumer snapshots"},
	} {
		if code, says := perform(t, line); code != want.code || !strings.Contains(says, want.says) {
			t.Errorf("%s: exit code %d, %q, want %d and %q", line, code, says, want.code, want.says)
		}
	}
}
