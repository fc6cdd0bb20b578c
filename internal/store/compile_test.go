package store

import (
	"database/sql/driver"
	"errors"
	"io"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// A query that is asked for each message, job or listed object is compiled once for a
// connection, whatever is bound to it.
func TestQueriesAreCompiledOnce(t *testing.T) {
	s, texts := newStore(t), constants(t)
	run(t, s, object(1))
	conn, err := s.readDB.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	err = conn.Raw(func(c any) error {
		db, _ := c.(*sqlite3.SQLiteConn)
		compiling := 0 // what the compiler asked leave for
		db.RegisterAuthorizer(func(int, string, string, string) int { compiling++; return sqlite3.SQLITE_OK })
		for _, name := range []string{
			"imageByID", "imageByObject", "newestByETag", "imagesByETag", "imagesPending", "imagesNeverAttempted",
			"imageCounts", "devicesOf", "deviceCounts", "keptCounts", "deviceHandedOut", "snapshotsOf",
			"messageTried", "treeInUse",
		} {
			stmt, err := db.Prepare(texts[name])
			if err != nil {
				return err
			}
			if compiling == 0 {
				t.Fatalf("%s: nobody sees it compiled", name)
			}
			compiling = 0
			for value := range int64(3) {
				if err := ask(stmt, value); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if compiling > 0 {
				t.Errorf("%s is compiled again for another value: say +? there", name)
			}
			compiling = 0
			if err := stmt.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// ask reads every row of a statement, with the value for each parameter.
func ask(stmt driver.Stmt, value int64) error {
	args := make([]driver.Value, stmt.NumInput())
	for i := range args {
		args[i] = value
	}
	rows, err := stmt.Query(args) //nolint:staticcheck // a driver's statement without a context
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		err = rows.Next(row)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, rows.Close())
}
