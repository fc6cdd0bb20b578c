package store

import (
	"database/sql"
	"strings"
	"testing"
)

// logBytes is the size of the database's log.
func logBytes(t *testing.T, s *Store) int64 {
	t.Helper()
	return must[Size](t)(s.Size(t.Context())).WALBytes
}

// grow writes a log of some 10 MB while a reader looks at what was before it, and returns
// that reader. It ends with end.
func grow(t *testing.T, s *Store) *sql.Conn {
	t.Helper()
	reader := must[*sql.Conn](t)(s.readDB.Conn(t.Context()))
	if _, err := reader.ExecContext(t.Context(), "BEGIN DEFERRED"); err != nil {
		t.Fatal(err)
	}
	if n := quarantined(t, reader); n != 0 {
		t.Fatal(n)
	}
	for i := range 20 {
		q := QuarantinedMessage{
			MessageID: strings.Repeat("m", i+1), Body: strings.Repeat("0123456789abcdef", 32<<10),
			Reason: "r",
		}
		if err := s.Quarantine(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	return reader
}

func quarantined(t *testing.T, reader *sql.Conn) (n int) {
	t.Helper()
	if err := reader.QueryRowContext(t.Context(), "SELECT count(*) FROM quarantine").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func end(t *testing.T, reader *sql.Conn) {
	t.Helper()
	if _, err := reader.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log that a reader made long is short again with the writes after it.
func TestLogIsBounded(t *testing.T) {
	s := newStore(t)
	reader := grow(t, s)
	if n := logBytes(t, s); n < 2*walLimit {
		t.Fatalf("the log has %d bytes: no reader held it", n)
	}
	end(t, reader)
	for i := range 3 { // the first brings it into the database, the next begins it anew
		if _, _, err := s.Enqueue(t.Context(), object(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := logBytes(t, s); n > walLimit {
		t.Errorf("the log has %d bytes still", n)
	}
}

// An empty log takes no space; a reader that needs it is not waited for, and its view is
// whole.
func TestTruncateWAL(t *testing.T) {
	s := newStore(t)
	if err := s.TruncateWAL(t.Context()); err != nil || logBytes(t, s) != 0 {
		t.Errorf("%v, %d bytes", err, logBytes(t, s))
	}
	reader := grow(t, s)
	if err := s.TruncateWAL(t.Context()); err != nil || logBytes(t, s) == 0 {
		t.Errorf("beside a reader: %v, %d bytes", err, logBytes(t, s))
	}
	if n := quarantined(t, reader); n != 0 {
		t.Errorf("the reader sees %d messages", n)
	}
	end(t, reader)
	if err := s.TruncateWAL(t.Context()); err != nil || logBytes(t, s) != 0 {
		t.Errorf("after it: %v, %d bytes", err, logBytes(t, s))
	}
	size := must[Size](t)(s.Size(t.Context()))
	if size.Quarantined != 20 || size.Bytes < 10<<20 {
		t.Errorf("%+v", size)
	}
	for range 10 { // each connection waits as ever
		conn := must[*sql.Conn](t)(s.readDB.Conn(t.Context()))
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		var ms int
		if err := conn.QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&ms); err != nil ||
			ms != int(busyTimeout.Milliseconds()) {
			t.Errorf("a connection waits %d ms, %v", ms, err)
		}
	}
}
