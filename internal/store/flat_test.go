package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The counts are those of the rows, whatever becomes of the images.
func TestCountsAreTheRows(t *testing.T) {
	for seed := range uint64(5) {
		s, ctx := newStore(t), t.Context()
		walk(t, s, rand.New(rand.NewPCG(seed, 1)), 60) //nolint:gosec // the same again for the same seed
		img := run(t, s, object(4711))
		must[Image](t)(s.Remove(ctx, Attempt{Image: img.ID, N: img.Attempt}, "test"))
		rows := map[State]int{}
		for _, img := range must[[]Image](t)(s.Images(ctx)) {
			rows[img.State]++
		}
		counts := must[map[State]int](t)(s.Counts(ctx))
		maps.DeleteFunc(counts, func(_ State, n int) bool { return n == 0 })
		if !maps.Equal(counts, rows) {
			t.Errorf("seed %d: counts %v, want %v", seed, counts, rows)
		}
		size := must[Size](t)(s.Size(ctx))
		devices := 0
		if err := s.readDB.QueryRowContext(ctx, "SELECT count(*) FROM devices").Scan(&devices); err != nil {
			t.Fatal(err)
		}
		if size.Images != int64(len(must[[]Image](t)(s.Images(ctx)))) || size.Devices != int64(devices) {
			t.Errorf("seed %d: %+v with %d devices", seed, size, devices)
		}
	}
}

// Kept are the images that are on their way or active, and those with devices.
func TestKeptImages(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	active, removed, gone, waiting := run(t, s, object(1)), run(t, s, object(2)), run(t, s, object(3)), object(4)
	for _, img := range []Image{removed, gone} {
		must[Image](t)(s.Remove(ctx, Attempt{Image: img.ID, N: img.Attempt}, "test"))
	}
	for _, d := range must[[]Device](t)(s.DevicesOf(ctx, gone.ID)) {
		if err := s.SetDeviceState(ctx, d.ID, DeviceGone); err != nil {
			t.Fatal(err)
		}
	}
	pending, _, err := s.Enqueue(ctx, waiting)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, img := range must[[]Image](t)(s.KeptImages(ctx)) {
		ids = append(ids, img.ID)
	}
	if want := []int64{active.ID, removed.ID, pending.ID}; fmt.Sprint(ids) != fmt.Sprint(want) {
		t.Errorf("kept are %d, want %d", ids, want)
	}
	if ids := must[[]int64](t)(s.VerifiableImages(ctx)); fmt.Sprint(ids) != fmt.Sprint([]int64{active.ID}) {
		t.Errorf("to be verified are %d, want %d alone", ids, active.ID)
	}
}

// A prefix is that of a key, letter by letter.
func TestAnyWithPrefix(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	for _, key := range []string{"images/b.tar", "images_old/b.tar", "other/é.tar"} {
		if _, _, err := s.Enqueue(ctx, Object{Bucket: "b", Key: key, ETag: "e"}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]bool{
		"": true, "images/": true, "images/b.tar": true, "images_": true, "other/é": true,
		"images/a": false, "images/c": false, "image%": false, "z": false, "images/b.tar.gz": false,
	} {
		if got := must[bool](t)(s.AnyWithPrefix(ctx, "b", prefix)); got != want {
			t.Errorf("%q: %t, want %t", prefix, got, want)
		}
	}
	if must[bool](t)(s.AnyWithPrefix(ctx, "a", "images/")) {
		t.Error("another bucket has an image")
	}
}

// A database from before the counts gets them, and hands out no id twice.
func TestCountsMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	old, ctx := open(path, "rwc"), t.Context()
	before := later(t)
	delete(before, "migrations/004_flat.sql")
	if err := migrate(ctx, old.writeDB, before); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, _, err := old.Enqueue(ctx, object(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.writeDB.ExecContext(ctx,
		"DELETE FROM events WHERE image_id = 3; DELETE FROM images WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	images := must[[]Image](t)(old.Images(ctx))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s := must[*Store](t)(Open(ctx, path))
	defer s.Close()
	if now := must[[]Image](t)(s.Images(ctx)); fmt.Sprint(now) != fmt.Sprint(images) {
		t.Errorf("images %+v, were %+v", now, images)
	}
	if n := must[map[State]int](t)(s.Counts(ctx))[StatePending]; n != 2 {
		t.Errorf("%d are pending, want 2", n)
	}
	if img := run(t, s, object(4)); img.ID != 4 {
		t.Errorf("the next image is %d, want 4", img.ID)
	}
}

// SQLite 3.40 says json_valid(NULL) is 0: a CHECK of a column that may be NULL says so.
func TestChecksOfOldSQLite(t *testing.T) {
	s := newStore(t)
	rows, err := s.readDB.QueryContext(t.Context(), "SELECT sql FROM sqlite_schema WHERE type = 'table'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	checks := 0
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "json_valid") {
				continue
			}
			if checks++; !strings.Contains(line, "NOT NULL") && !strings.Contains(line, "IS NULL OR") {
				t.Errorf("NULL is refused by some versions: %s", line)
			}
		}
	}
	if err := rows.Err(); err != nil || checks < 3 {
		t.Errorf("%d checks, %v", checks, err)
	}
}

// multiply makes n further images like the first, with 14 events and two devices each.
func multiply(b *testing.B, s *Store, n int) {
	b.Helper()
	const numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
	err := s.inTx(b.Context(), func(tx transaction) error {
		for _, text := range []string{
			`INSERT INTO images SELECT 100 + i, bucket, 'images/more-' || i || '.tar', 'more-' || i, '', 'more-' || i,
				sequencer, size, trace_id, created_at, state, stage, running, attempt, failures, reason, blob,
				json_set(tree, '$.digest', 'sha256:' || i), updated_at, cut_offs, doubt, rules
				FROM n, images WHERE id = 1 ORDER BY i`,
			`INSERT INTO events (image_id, at, kind, stage, attempt, verdict, reason, detail)
				SELECT 100 + i, at, kind, stage, attempt, verdict, reason, detail FROM n, events
				WHERE image_id = 1 ORDER BY i, seq`,
			`INSERT INTO devices SELECT 100 + 2 * i, 100 + i, 'image', 'ready', NULL, 1, '', 0 FROM n`,
			`INSERT INTO devices SELECT 101 + 2 * i, 100 + i, 'snapshot', 'ready', 100 + 2 * i, 1, '', 0 FROM n`,
			`INSERT INTO snapshots SELECT 101 + 2 * i, 100 + i, '/dev/mapper/' || i, 'active', 0 FROM n`,
		} {
			if _, err := tx.ExecContext(b.Context(), numbers+text, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBesideImages is what is asked or written for each message, job and scrape,
// with few images in the journal and with many. It ought to be the same: compare within
// one run.
func BenchmarkBesideImages(b *testing.B) {
	ask := map[string]func(context.Context, *Store, Image) error{
		"Find": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.Find(ctx, object(1))
			return err
		},
		"Image": func(ctx context.Context, s *Store, img Image) error {
			_, err := s.Image(ctx, img.ID)
			return err
		},
		"DevicesOf": func(ctx context.Context, s *Store, img Image) error {
			_, err := s.DevicesOf(ctx, img.ID)
			return err
		},
		"SnapshotsOf": func(ctx context.Context, s *Store, img Image) error {
			_, err := s.SnapshotsOf(ctx, img.ID)
			return err
		},
		"Tried": func(ctx context.Context, s *Store, img Image) error {
			_, err := s.Tried(ctx, img.ID, "message")
			return err
		},
		"NeverAttempted": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.NeverAttempted(ctx)
			return err
		},
		"PendingImages": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.PendingImages(ctx)
			return err
		},
		"TreeInUse": func(ctx context.Context, s *Store, img Image) error {
			_, err := s.TreeInUse(ctx, img.Tree.Digest)
			return err
		},
		"AnyWithPrefix": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.AnyWithPrefix(ctx, "b", "images0/")
			return err
		},
		"Counts": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.Counts(ctx)
			return err
		},
		"Size": func(ctx context.Context, s *Store, _ Image) error {
			_, err := s.Size(ctx)
			return err
		},
		"Event": func(ctx context.Context, s *Store, img Image) error {
			a, err := s.Begin(ctx, img.ID, StageActivate)
			if err == nil {
				_, err = s.Undo(ctx, a, "benchmark")
			}
			return err
		},
	}
	type journal struct {
		n   int
		s   *Store
		img Image
	}
	var journals []journal
	for _, n := range []int{1, 1000, 10_000} {
		s := newStore(b)
		img := run(b, s, object(1))
		multiply(b, s, n-1)
		journals = append(journals, journal{n, s, img})
	}
	for _, name := range slices.Sorted(maps.Keys(ask)) {
		for _, j := range journals {
			b.Run(fmt.Sprintf("%s/%d", name, j.n), func(b *testing.B) {
				for b.Loop() {
					if err := ask[name](b.Context(), j.s, j.img); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
