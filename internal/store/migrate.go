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

// migratePatiently waits for others that open the same new database: while one of them
// changes its journal mode, SQLite tells the others that it is locked without waiting.
func migratePatiently(ctx context.Context, db *sql.DB) error {
	began, again := time.Now(), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		err := migrate(ctx, db)
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

// migrate applies the files of migrations/ in the order of their names, each in a
// transaction with the version it leads to.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	have, err := version(ctx, db)
	if err != nil {
		return err
	}
	if have > len(files) {
		return fmt.Errorf("%w: schema %d, known %d", ErrNewer, have, len(files))
	}
	for i := have; i < len(files); i++ {
		if err := migrateOne(ctx, db, files[i], i+1); err != nil {
			return fmt.Errorf("%s: %w", files[i], err)
		}
	}
	return nil
}

func migrateOne(ctx context.Context, db *sql.DB, file string, to int) (err error) {
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// for tables that are made anew; no effect in a transaction
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
	if have, err := version(ctx, tx); err != nil || have >= to { // another process was faster
		return err
	}
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
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

// checkForeignKeys makes sure that a migration has left no row without the one that it
// refers to.
func checkForeignKeys(ctx context.Context, tx *sql.Tx) error {
	var table string
	err := tx.QueryRowContext(ctx, "SELECT \"table\" FROM pragma_foreign_key_check").Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return errors.Join(fmt.Errorf("rows of table %q refer to nothing", table), err)
}

func version(ctx context.Context, db queryer) (int, error) {
	var v int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

// checkVersion refuses a database that this program would have to migrate first, or
// cannot understand.
func checkVersion(ctx context.Context, db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	have, err := version(ctx, db)
	switch {
	case err != nil:
		return err
	case have > len(files):
		return fmt.Errorf("%w: schema %d, known %d", ErrNewer, have, len(files))
	case have < len(files):
		return fmt.Errorf("schema %d is older than %d: start the daemon once to migrate it", have, len(files))
	}
	return nil
}
