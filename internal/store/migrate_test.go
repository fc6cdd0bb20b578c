package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMigrateIsIdempotentAndRefusesNewer(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "c.db")
	for range 2 {
		s := must[*Store](t)(Open(ctx, path))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := must[*Store](t)(Open(ctx, path))
	if _, err := s.writeDB.ExecContext(ctx, "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, path); !errors.Is(err, ErrNewer) {
		t.Errorf("Open of a newer database: %v, want ErrNewer", err)
	}
	if _, err := OpenExisting(ctx, path); !errors.Is(err, ErrNewer) {
		t.Errorf("OpenExisting of a newer database: %v, want ErrNewer", err)
	}
	if _, err := OpenExisting(ctx, path+".absent"); !errors.Is(err, ErrNotFound) {
		t.Errorf("OpenExisting of nothing: %v, want ErrNotFound", err)
	}
}

// A command opens only a database that needs no migration, and changes nothing in it.
func TestOlderIsRefusedByCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(path, "rwc")
	if _, err := s.writeDB.ExecContext(t.Context(), "CREATE TABLE older (id INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenExisting(t.Context(), path); err == nil {
		t.Error("a command opened an older schema")
		s.Close()
	}
	db := must[*sql.DB](t)(sql.Open("sqlite3", path))
	defer db.Close()
	if v := must[int](t)(schemaVersion(t.Context(), db)); v != 0 {
		t.Errorf("the command left version %d", v)
	}
}

// later are the migrations there are, and some that might follow them.
func later(t *testing.T, texts ...string) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range must[[]string](t)(fs.Glob(migrations, "migrations/*.sql")) {
		files[name] = &fstest.MapFile{Data: must[[]byte](t)(migrations.ReadFile(name))}
	}
	for _, text := range texts {
		files[fmt.Sprintf("migrations/%03d_later.sql", len(files)+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

// A database of the first schema keeps what it holds. What its images had changed is not
// known.
func TestFirstSchemaMigrates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	old, ctx := open(path, "rwc"), t.Context()
	first := later(t)
	for name := range first {
		if name != "migrations/001_journal.sql" {
			delete(first, name)
		}
	}
	if err := migrate(ctx, old.writeDB, first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := old.Enqueue(ctx, object(1)); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s := must[*Store](t)(Open(ctx, path))
	defer s.Close()
	if img := run(t, s, object(2)); img.ID != 2 {
		t.Errorf("the second image is %d", img.ID)
	}
	if changes := must[[]Adjustment](t)(s.Adjustments(ctx, 1)); len(changes) != 0 {
		t.Errorf("%+v", changes)
	}
}

// replaceDevices replaces a table that others refer to by one with a further state.
const replaceDevices = `
	CREATE TABLE new_devices (
		id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 16777215),
		image_id    INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
		kind        TEXT    NOT NULL,
		state       TEXT    NOT NULL CHECK (state IN ('reserved', 'created', 'formatted',
			'filled', 'sealed', 'ready', 'lent', 'deleting', 'gone')),
		origin      INTEGER REFERENCES devices (id),
		bytes       INTEGER NOT NULL,
		fs_uuid     TEXT    NOT NULL,
		updated_at  INTEGER NOT NULL
	) STRICT;
	INSERT INTO new_devices SELECT * FROM devices;
	DROP TABLE devices;
	ALTER TABLE new_devices RENAME TO devices;`

// Migrations apply in the order of their names, each once, and keep what the database
// holds: rows, ids that were handed out, and foreign keys.
func TestMigrationsApplyInOrder(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	img := run(t, s, object(1))
	images, events, devices := must[[]Image](t)(s.Images(ctx)), must[[]Event](t)(s.Since(ctx, 0)),
		must[[]Device](t)(s.Devices(ctx))
	lend := func() error {
		_, err := s.writeDB.ExecContext(ctx, "UPDATE devices SET state = 'lent'")
		return err
	}
	if err := lend(); err == nil {
		t.Fatal("the first schema takes what only the second has: this test shows nothing")
	}
	files := later(t, replaceDevices, "ALTER TABLE snapshots ADD COLUMN user TEXT NOT NULL DEFAULT 'nobody'",
		"UPDATE snapshots SET user = user || ' at all'")
	for range 2 {
		if err := migrate(ctx, s.writeDB, files); err != nil {
			t.Fatal(err)
		}
	}
	var user string
	if err := s.readDB.QueryRowContext(ctx, "SELECT user FROM snapshots").Scan(&user); err != nil ||
		user != "nobody at all" {
		t.Errorf("user %q, %v", user, err)
	}
	if v := must[int](t)(schemaVersion(ctx, s.readDB)); v != len(files) {
		t.Errorf("schema version %d, want %d", v, len(files))
	}
	if now := must[[]Image](t)(s.Images(ctx)); !reflect.DeepEqual(now, images) {
		t.Errorf("images\n%+v, want\n%+v", now, images)
	}
	if now := must[[]Event](t)(s.Since(ctx, 0)); !reflect.DeepEqual(now, events) {
		t.Errorf("events\n%+v, want\n%+v", now, events)
	}
	if now := must[[]Device](t)(s.Devices(ctx)); !reflect.DeepEqual(now, devices) {
		t.Errorf("devices\n%+v, want\n%+v", now, devices)
	}
	if next := run(t, s, object(2)); next.Tree.Device != img.Tree.Device+2 {
		t.Errorf("the next device is %d, want %d", next.Tree.Device, img.Tree.Device+2)
	}
	if err := lend(); err != nil {
		t.Errorf("the migrated table: %v", err)
	}
	if _, err := s.writeDB.ExecContext(ctx, "DELETE FROM devices WHERE id = 1"); err == nil {
		t.Error("a device with a snapshot was deleted: foreign keys are off")
	}
}

// A migration that fails leaves the schema and the version of the one before it. So does
// one that leaves a row without the row that it refers to.
func TestMigrationIsAllOrNothing(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"broken":      {"DROP TABLE quarantine; NONSENSE", "syntax"},
		"dangling id": {"DELETE FROM devices", "refer to missing rows"},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := newStore(t), t.Context()
			run(t, s, object(1))
			files := later(t, "CREATE TABLE more (id INTEGER)", c.text)
			if err := migrate(ctx, s.writeDB, files); err == nil || !strings.Contains(err.Error(), c.says) ||
				!strings.Contains(err.Error(), fmt.Sprintf("%03d_later.sql", len(files))) {
				t.Errorf("%v, want it to say %q", err, c.says)
			}
			if v := must[int](t)(schemaVersion(ctx, s.readDB)); v != len(files)-1 {
				t.Errorf("schema version %d, want %d", v, len(files)-1)
			}
			if n := len(must[[]Snapshot](t)(s.Snapshots(ctx))) + len(must[[]Device](t)(s.Devices(ctx))); n != 3 {
				t.Errorf("%d snapshots and devices, want 3", n)
			}
			if _, err := s.writeDB.ExecContext(ctx, "DELETE FROM images"); err == nil {
				t.Error("foreign keys are off")
			}
		})
	}
}
