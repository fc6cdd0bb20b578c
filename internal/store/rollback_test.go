package store

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A power cut while the database was made, before it had a write-ahead log, leaves a
// rollback journal. SQLite rolls it back, and the start goes on.
func TestRollbackJournal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "being-made.db")
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, query := range []string{
		"PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 1", "CREATE TABLE scratch (text TEXT)",
		"INSERT INTO scratch VALUES ('" + strings.Repeat("before", 10000) + "')",
		"BEGIN", "UPDATE scratch SET text = '" + strings.Repeat("after ", 10000) + "'", "DELETE FROM scratch",
		"INSERT INTO scratch VALUES ('" + strings.Repeat("later ", 50000) + "')",
	} {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(dir, "left.db")
	for _, suffix := range []string{"", "-journal"} {
		text, err := os.ReadFile(path + suffix)
		if err := errors.Join(err, os.WriteFile(left+suffix, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), left)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var text string
	if err := s.readDB.QueryRowContext(t.Context(), "SELECT text FROM scratch").Scan(&text); err != nil ||
		!strings.HasPrefix(text, "before") {
		t.Errorf("%.20q, %v: not rolled back", text, err)
	}
}
