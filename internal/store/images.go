package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Image is one object and the fold of its events.
type Image struct {
	ID int64 `json:"id"`
	Object
	Progress
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

const (
	imageColumns = `id, bucket, key, version_id, etag, sequencer, size, created_at,
		state, stage, running, attempt, failures, reason, cut_offs, doubt, rules, blob, tree, updated_at`
	imageByID     = `SELECT ` + imageColumns + ` FROM images WHERE id = ?`
	imageByObject = `SELECT ` + imageColumns + ` FROM images WHERE bucket = ? AND key = ? AND version = ?`
	// An event without a version id, or a listing, is about the image that has the eTag,
	// whatever its version; and an event with one is about the image that was made
	// without.
	imageByETag = `SELECT ` + imageColumns + ` FROM images WHERE bucket = ?1 AND key = ?2 AND etag = ?3 AND etag <> ''
		AND (?4 = '' OR version_id = '') ORDER BY id DESC LIMIT 1`
	imagesByKey   = `SELECT ` + imageColumns + ` FROM images WHERE key = ? ORDER BY id`
	imagesPending = `SELECT ` + imageColumns + ` FROM images WHERE state = 'pending' ORDER BY id`
	imagesAll     = `SELECT ` + imageColumns + ` FROM images ORDER BY id`
	imagesByETag  = `SELECT ` + imageColumns + ` FROM images WHERE bucket = ? AND key = ? AND etag = ? ORDER BY id`
	imagesUnder   = `SELECT EXISTS (SELECT 1 FROM images WHERE bucket = ? AND substr(key, 1, length(?)) = ?)`
	treeUsed      = `SELECT EXISTS (SELECT 1 FROM images WHERE state IN ('pending', 'active') AND json_extract(tree, '$.digest') = ?)`
	imageCounts   = `SELECT state, count(*) FROM images GROUP BY state`
	imageInsert   = `INSERT INTO images (bucket, key, version, version_id, etag, sequencer, size, created_at,
		state, stage, running, attempt, failures, reason, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', 'download', 0, 0, 0, '', ?)`
	imageUpdate = `UPDATE images SET state = ?, stage = ?, running = ?, attempt = ?, failures = ?, reason = ?,
		cut_offs = ?, doubt = ?, rules = ?, blob = ?, tree = ?, updated_at = ? WHERE id = ?`

	eventInsert = `INSERT INTO events (image_id, at, kind, stage, attempt, verdict, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
	eventsOf    = `SELECT seq, image_id, at, kind, stage, attempt, verdict, reason, detail FROM events WHERE image_id = ? ORDER BY seq`
	messageSeen = `SELECT EXISTS (SELECT 1 FROM events, json_each(events.detail, '$.messages') AS m WHERE events.image_id = ? AND m.value = ?)`
	eventsAfter = `SELECT seq, image_id, at, kind, stage, attempt, verdict, reason, detail FROM events WHERE seq > ? ORDER BY seq LIMIT 1000`
)

// Find returns the image that the object is, or ErrNotFound. Some senders leave the
// version id out, of events or of listings: an object without one is the newest image
// with its eTag.
func (s *Store) Find(ctx context.Context, o Object) (Image, error) {
	return findImage(ctx, s.read, o)
}

func findImage(ctx context.Context, q queryer, o Object) (Image, error) {
	img, err := queryImage(ctx, q, imageByObject, o.Bucket, o.Key, o.Version())
	if errors.Is(err, ErrNotFound) {
		img, err = queryImage(ctx, q, imageByETag, o.Bucket, o.Key, o.ETag, o.VersionID)
	}
	return img, err
}

// Image returns the image with the id, or ErrNotFound.
func (s *Store) Image(ctx context.Context, id int64) (Image, error) {
	return queryImage(ctx, s.read, imageByID, id)
}

// ByETag returns every image made from an object with this key and eTag, whatever its
// version id, oldest first.
func (s *Store) ByETag(ctx context.Context, bucket, key, etag string) ([]Image, error) {
	return s.images(ctx, imagesByETag, bucket, key, etag)
}

// AnyUnder reports whether any image is of the bucket, with a key that begins with the
// prefix.
func (s *Store) AnyUnder(ctx context.Context, bucket, prefix string) (bool, error) {
	var is bool
	if err := s.read.QueryRowContext(ctx, imagesUnder, bucket, prefix, prefix).Scan(&is); err != nil {
		return false, fmt.Errorf("look for images under %s: %w", prefix, err)
	}
	return is, nil
}

// TreeUsed reports whether an image that is not refused holds the tree.
func (s *Store) TreeUsed(ctx context.Context, digest string) (bool, error) {
	var used bool
	if err := s.read.QueryRowContext(ctx, treeUsed, digest).Scan(&used); err != nil {
		return false, fmt.Errorf("look for tree %s: %w", digest, err)
	}
	return used, nil
}

// ByKey returns every image made from versions of the key, oldest first.
func (s *Store) ByKey(ctx context.Context, key string) ([]Image, error) {
	return s.images(ctx, imagesByKey, key)
}

// Unfinished returns the pending images, oldest first.
func (s *Store) Unfinished(ctx context.Context) ([]Image, error) { return s.images(ctx, imagesPending) }

// Images returns every image, oldest first.
func (s *Store) Images(ctx context.Context) ([]Image, error) { return s.images(ctx, imagesAll) }

// Counts returns how many images are in each state.
func (s *Store) Counts(ctx context.Context) (map[State]int, error) {
	rows, err := s.read.QueryContext(ctx, imageCounts)
	if err != nil {
		return nil, fmt.Errorf("count images: %w", err)
	}
	defer rows.Close()
	counts := map[State]int{}
	for rows.Next() {
		var st State
		var n int
		if err := rows.Scan(&st, &n); err != nil {
			return nil, fmt.Errorf("count images: %w", err)
		}
		counts[st] = n
	}
	return counts, rows.Err()
}

// History returns the events of an image in order.
func (s *Store) History(ctx context.Context, image int64) ([]Event, error) {
	return s.events(ctx, eventsOf, image)
}

// Tried reports whether any attempt at the image was begun, or failed, while the message
// waited for it.
func (s *Store) Tried(ctx context.Context, image int64, message string) (bool, error) {
	var tried bool
	if err := s.read.QueryRowContext(ctx, messageSeen, image, message).Scan(&tried); err != nil {
		return false, fmt.Errorf("look for message %s of image %d: %w", message, image, err)
	}
	return tried, nil
}

// Since returns at most 1,000 events of all images that follow seq.
func (s *Store) Since(ctx context.Context, seq int64) ([]Event, error) {
	return s.events(ctx, eventsAfter, seq)
}

// queryer is a transaction or a pool of connections.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func queryImage(ctx context.Context, q queryer, query string, args ...any) (Image, error) {
	img, err := scanImage(q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return img, fmt.Errorf("image %v: %w", args, ErrNotFound)
	}
	return img, err
}

func (s *Store) images(ctx context.Context, query string, args ...any) ([]Image, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read images: %w", err)
	}
	defer rows.Close()
	var list []Image
	for rows.Next() {
		img, err := scanImage(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	return list, rows.Err()
}

// scanner is a row, or the current one of several.
type scanner interface{ Scan(dest ...any) error }

func scanImage(row scanner) (Image, error) {
	var (
		img              Image
		created, updated int64
		blob, tree       sql.NullString
	)
	err := row.Scan(&img.ID, &img.Bucket, &img.Key, &img.VersionID, &img.ETag, &img.Sequencer, &img.Size, &created,
		&img.State, &img.Stage, &img.Running, &img.Attempt, &img.Failures, &img.Reason,
		&img.CutOffs, &img.Doubt, &img.Rules, &blob, &tree, &updated)
	if err != nil {
		return img, fmt.Errorf("read image: %w", err)
	}
	img.CreatedAt, img.UpdatedAt = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	if blob.Valid {
		if err := json.Unmarshal([]byte(blob.String), &img.Blob); err != nil {
			return img, fmt.Errorf("blob of image %d: %w", img.ID, err)
		}
	}
	if tree.Valid {
		if err := json.Unmarshal([]byte(tree.String), &img.Tree); err != nil {
			return img, fmt.Errorf("tree of image %d: %w", img.ID, err)
		}
	}
	return img, nil
}

// insertImage returns the new image's id.
func insertImage(ctx context.Context, tx *sql.Tx, o Object, now time.Time) (int64, error) {
	res, err := tx.ExecContext(ctx, imageInsert, o.Bucket, o.Key, o.Version(), o.VersionID, o.ETag, o.Sequencer, o.Size,
		now.UnixNano(), now.UnixNano())
	if err != nil {
		return 0, fmt.Errorf("insert image: %w", err)
	}
	return res.LastInsertId()
}

func updateImage(ctx context.Context, tx *sql.Tx, img Image) error {
	blob, err := nullable(img.Blob)
	if err != nil {
		return err
	}
	tree, err := nullable(img.Tree)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, imageUpdate, string(img.State), string(img.Stage), img.Running, img.Attempt,
		img.Failures, img.Reason,
		img.CutOffs, string(img.Doubt), img.Rules, blob, tree, img.UpdatedAt.UnixNano(), img.ID)
	if err != nil {
		return fmt.Errorf("update image %d: %w", img.ID, err)
	}
	return nil
}

// nullable encodes *v as JSON, nil as NULL.
func nullable[T any](v *T) (any, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

func (s *Store) events(ctx context.Context, query string, arg int64) ([]Event, error) {
	rows, err := s.read.QueryContext(ctx, query, arg)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	var list []Event
	for rows.Next() {
		var e Event
		var at int64
		var detail string
		if err := rows.Scan(&e.Seq, &e.Image, &at, &e.Kind, &e.Stage, &e.Attempt, &e.Verdict, &e.Reason,
			&detail); err != nil {
			return nil, fmt.Errorf("read event: %w", err)
		}
		e.At = time.Unix(0, at).UTC()
		if err := json.Unmarshal([]byte(detail), &e.Detail); err != nil {
			return nil, fmt.Errorf("detail of event %d: %w", e.Seq, err)
		}
		list = append(list, e)
	}
	return list, rows.Err()
}
