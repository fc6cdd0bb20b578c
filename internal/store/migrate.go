package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migratePatiently retries migrate while the database is locked. Several processes may
// open the same new database. While one of them changes the journal mode, SQLite tells
// the others at once that it is locked, without regard to the busy timeout.
func migratePatiently(ctx context.Context, db *sql.DB) error {
	began, again := time.Now(), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		err := migrate(ctx, db, migrations)
		if !Busy(err) || time.Since(began) > busyTimeout {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// migrate applies the files of migrations/ in the order of their names. Each has its own
// transaction, which also sets the schema version: the number of files applied so far.
func migrate(ctx context.Context, db *sql.DB, from fs.FS) error {
	files, err := fs.Glob(from, "migrations/*.sql")
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, db)
	if err != nil {
		return err
	}
	if have > len(files) {
		return newer(have, len(files))
	}
	for i := have; i < len(files); i++ {
		text, err := fs.ReadFile(from, files[i])
		if err == nil {
			err = migrateTo(ctx, db, i+1, string(text))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", files[i], err)
		}
	}
	return nil
}

// migrateTo runs the statements that lead to a schema version. Foreign keys are off
// meanwhile, because a migration may have to replace a table
// (https://www.sqlite.org/lang_altertable.html#otheralter). They are checked before the
// commit. The pragma has no effect inside a transaction.
func migrateTo(ctx context.Context, db *sql.DB, to int, statements string) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "PRAGMA foreign_keys = OFF"); err != nil {
		return err
	}
	defer func() {
		_, on := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA foreign_keys = ON")
		err = errors.Join(err, on)
	}()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if have, err := schemaVersion(ctx, tx); err != nil || have >= to { // another process was faster
		return err
	}
	if _, err := tx.ExecContext(ctx, statements); err != nil {
		return err
	}
	if err := checkForeignKeys(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", to)); err != nil {
		return err
	}
	return tx.Commit()
}

// checkForeignKeys returns an error if a row refers to a missing one.
func checkForeignKeys(ctx context.Context, tx *sql.Tx) error {
	var table string
	err := tx.QueryRowContext(ctx, "SELECT \"table\" FROM pragma_foreign_key_check").Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return errors.Join(fmt.Errorf("rows of table %q refer to missing rows", table), err)
}

func newer(have, known int) error {
	return fmt.Errorf("%w: it has schema %d, and this version knows %d; install the newer version again, or restore "+
		"the backup from before the upgrade", ErrNewer, have, known)
}

func schemaVersion(ctx context.Context, db queryer) (int, error) {
	var v int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

// checkVersion refuses a database of any other schema version than this program's. A
// newer one is ErrNewer.
func checkVersion(ctx context.Context, db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, db)
	switch {
	case err != nil:
		return err
	case have > len(files):
		return newer(have, len(files))
	case have < len(files):
		return fmt.Errorf("schema %d is older than %d: start the daemon once to migrate it", have, len(files))
	}
	return nil
}
