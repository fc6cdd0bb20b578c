package main

import (
	"os"
	"strings"
	"testing"
)

// An older version of the program refuses a database of a newer schema. It says what to
// do, ends with a code after which systemd does not start it again, and changes nothing.
func TestDowngrade(t *testing.T) {
	t.Setenv("S3_BUCKET", "demo")
	t.Setenv("SQS_QUEUE_URL", "http://127.0.0.1/q")
	path := stateWith(t, "images/a.tar")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before[63] = 99 // the schema version: SQLite, "Database File Format", 1.3.15
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"images", "status", "verify 1", "backup " + path + ".copy"} {
		code, text := perform(t, command)
		if code != 3 || !strings.Contains(text, "schema 99") || !strings.Contains(text, "newer version again") {
			t.Errorf("%s: exit code %d, %s", command, code, text)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the database was changed, %v", err)
	}
}
