package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Image is one object and the fold of its events.
type Image struct {
	ID int64 `json:"id"`
	Object
	Progress
	TraceID   string    `json:"trace_id"` // of all work on the image: 32 hex digits, as in W3C Trace Context
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

const (
	imageColumns = `id, bucket, key, version_id, etag, sequencer, size, trace_id, created_at,
		state, stage, running, attempt, failures, reason, cut_offs, doubt, rules, blob, tree, updated_at`
	imageSelect   = `SELECT ` + imageColumns + ` FROM images`
	imageByID     = imageSelect + ` WHERE id = ?`
	imageByObject = imageSelect + ` WHERE bucket = ? AND key = ? AND version = ?`
	// An event or a listing without a version id is about the image with the same eTag,
	// whatever the image's version. An event with one may be about an image that was made
	// without.
	newestByETag = imageSelect + ` WHERE bucket = +?1 AND key = +?2 AND etag = +?3 AND etag <> ''
		AND (+?4 = '' OR version_id = '') ORDER BY id DESC LIMIT 1`
	imagesByKey          = imageSelect + ` WHERE key = ? ORDER BY id`
	imagesByKeyEnd       = imageSelect + ` WHERE substr(key, -length(?1)) = ?1 ORDER BY id`
	imagesPending        = imageSelect + ` WHERE state = 'pending' ORDER BY id`
	imagesAll            = imageSelect + ` ORDER BY id`
	imagesByETag         = imageSelect + ` WHERE bucket = +? AND key = +? AND etag = +? ORDER BY id`
	imagesNeverAttempted = imageSelect + ` WHERE state = 'pending' AND (attempt = 0 OR
		(SELECT kind FROM events WHERE image_id = images.id ORDER BY seq DESC LIMIT 1)
			IN ('reopened', 'resubmitted')) ORDER BY id LIMIT 100`
	// The first key from the prefix on begins with it, or none does.
	imagesWithPrefix = `SELECT EXISTS (SELECT 1 FROM
		(SELECT key FROM images WHERE bucket = ?1 AND key >= ?2 ORDER BY key LIMIT 1)
		WHERE substr(key, 1, length(?2)) = ?2)`
	treeInUse = `SELECT EXISTS (SELECT 1 FROM images
		WHERE tree IS NOT NULL AND json_extract(tree, '$.digest') = ? AND state IN ('pending', 'active'))`
	imageCounts = `SELECT state, n FROM counts WHERE name = 'images'`
	// Images of which something may be kept.
	imagesKept = imageSelect + ` WHERE state IN ('pending', 'active') OR
		id IN (SELECT image_id FROM devices WHERE state <> 'gone') ORDER BY id`
	imagesVerifiable = `SELECT id FROM images WHERE state = 'active' AND tree IS NOT NULL ORDER BY id`
	imageInsert      = `INSERT INTO images (id, bucket, key, version, version_id, etag, sequencer, size, trace_id,
		created_at, state, stage, running, attempt, failures, reason, updated_at)
		VALUES (nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', 'download', 0, 0, 0, '', ?)`
	imageUpdate = `UPDATE images SET state = ?, stage = ?, running = ?, attempt = ?, failures = ?, reason = ?,
		cut_offs = ?, doubt = ?, rules = ?, blob = ?, tree = ?, updated_at = ? WHERE id = ?`
	// Without state and tree. SQLite writes an index anew when one of its columns is set,
	// even to the same value, and these two have four.
	attemptUpdate = `UPDATE images SET stage = ?, running = ?, attempt = ?, failures = ?, reason = ?, cut_offs = ?,
		doubt = ?, rules = ?, blob = ?, updated_at = ? WHERE id = ?`
)

// Find returns the image of the object, or ErrNotFound. Some senders leave the version id
// out of events or listings. Without one, the object is the newest image with its eTag.
func (s *Store) Find(ctx context.Context, o Object) (Image, error) {
	return findImage(ctx, s.readDB, o)
}

func findImage(ctx context.Context, q queryer, o Object) (Image, error) {
	img, err := queryImage(ctx, q, imageByObject, o.Bucket, o.Key, o.Version())
	if errors.Is(err, ErrNotFound) {
		img, err = queryImage(ctx, q, newestByETag, o.Bucket, o.Key, o.ETag, o.VersionID)
	}
	return img, err
}

// Image returns the image with the id, or ErrNotFound.
func (s *Store) Image(ctx context.Context, id int64) (Image, error) {
	return queryImage(ctx, s.readDB, imageByID, id)
}

// ByETag returns every image made from an object with this key and eTag, whatever its
// version id, oldest first.
func (s *Store) ByETag(ctx context.Context, bucket, key, etag string) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesByETag, bucket, key, etag)
}

// ByKey returns every image made from versions of the key, oldest first.
func (s *Store) ByKey(ctx context.Context, key string) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesByKey, key)
}

// ByKeyEnd returns every image whose key ends with the text, oldest first.
func (s *Store) ByKeyEnd(ctx context.Context, end string) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesByKeyEnd, end)
}

// PendingImages returns the pending images, oldest first.
func (s *Store) PendingImages(ctx context.Context) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesPending)
}

// NeverAttempted returns at most 100 pending images, oldest first: those without an
// attempt since they entered the journal, or since they were taken into the pipeline
// again. They come from an operator, a backfill, or a message that is still in intake.
func (s *Store) NeverAttempted(ctx context.Context) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesNeverAttempted)
}

// Images returns every image, oldest first.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesAll)
}

// KeptImages returns the images that are pending or active, and those with devices,
// oldest first. Its cost does not grow with the images that were refused or removed.
func (s *Store) KeptImages(ctx context.Context) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesKept)
}

// VerifiableImages returns the ids of the active images with a tree, oldest first.
func (s *Store) VerifiableImages(ctx context.Context) ([]int64, error) {
	scan := func(row scanner) (id int64, err error) {
		err = row.Scan(&id)
		return id, err
	}
	return queryAll(ctx, s.readDB, "images", scan, imagesVerifiable)
}

// AnyWithPrefix reports whether the bucket has any image whose key begins with the
// prefix.
func (s *Store) AnyWithPrefix(ctx context.Context, bucket, prefix string) (bool, error) {
	found, err := queryBool(ctx, s.readDB, imagesWithPrefix, bucket, prefix)
	if err != nil {
		return false, fmt.Errorf("look for images under %s: %w", prefix, err)
	}
	return found, nil
}

// TreeInUse reports whether a pending or active image has the tree.
func (s *Store) TreeInUse(ctx context.Context, digest string) (bool, error) {
	used, err := queryBool(ctx, s.readDB, treeInUse, digest)
	if err != nil {
		return false, fmt.Errorf("look for tree %s: %w", digest, err)
	}
	return used, nil
}

// States returns every state that an image can have.
func States() []State {
	return []State{
		StatePending, StateActive, StateRejected, StateViolation, StateSuperseded, StateVanished, StateDead,
		StateRemoved,
	}
}

// Counts returns how many images are in each state. It reads a row for each.
func (s *Store) Counts(ctx context.Context) (map[State]int, error) {
	rows, err := s.readDB.QueryContext(ctx, imageCounts)
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

func queryImage(ctx context.Context, q queryer, query string, args ...any) (Image, error) {
	img, err := scanImage(q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return img, fmt.Errorf("image %s: %w", strings.TrimSpace(fmt.Sprintln(args...)), ErrNotFound)
	}
	return img, err
}

func queryImages(ctx context.Context, db *sql.DB, query string, args ...any) ([]Image, error) {
	return queryAll(ctx, db, "images", scanImage, query, args...)
}

func scanImage(row scanner) (Image, error) {
	var (
		img              Image
		created, updated int64
		blob, tree       sql.NullString
	)
	err := row.Scan(&img.ID, &img.Bucket, &img.Key, &img.VersionID, &img.ETag, &img.Sequencer, &img.Size,
		&img.TraceID, &created, &img.State, &img.Stage, &img.Running, &img.Attempt, &img.Failures, &img.Reason,
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

// insertImage inserts an image before its first event, and returns its id. It takes the
// next id if img has none.
func insertImage(ctx context.Context, tx transaction, img Image) (int64, error) {
	o := img.Object
	res, err := tx.ExecContext(ctx, imageInsert, img.ID, o.Bucket, o.Key, o.Version(), o.VersionID, o.ETag,
		o.Sequencer, o.Size, img.TraceID, img.CreatedAt.UnixNano(), img.UpdatedAt.UnixNano())
	if err != nil {
		return 0, fmt.Errorf("insert image: %w", err)
	}
	return res.LastInsertId()
}

func updateImage(ctx context.Context, tx transaction, img Image) error {
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

// updateAttempt is updateImage for an event that leaves state and tree as they were.
func updateAttempt(ctx context.Context, tx transaction, img Image) error {
	blob, err := nullable(img.Blob)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, attemptUpdate, string(img.Stage), img.Running, img.Attempt, img.Failures, img.Reason,
		img.CutOffs, string(img.Doubt), img.Rules, blob, img.UpdatedAt.UnixNano(), img.ID)
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
