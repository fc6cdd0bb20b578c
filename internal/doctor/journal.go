package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// mostWAL is far above the size at which SQLite writes the WAL back by itself, 4 MiB.
const mostWAL = 64 << 20

// poolChecks are the checks that the database is read for.
var poolChecks = []string{"pool", "pool-space", "pool-files", "udev", "lvm"}

// journal looks at the database, at the pool that it names, and at who else may touch it.
func (m *Machine) journal(ctx context.Context) []Finding {
	st, database := m.database(ctx)
	if st == nil {
		return append([]Finding{database}, skipped("the database is not open", poolChecks...)...)
	}
	defer st.Close()
	found := []Finding{database}
	row, err := st.Pool(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && row.State != "ready":
		found = append(found, fail("pool", "consumer pool create", "there is no thin pool yet"))
		found = append(found, skipped("there is no pool", poolChecks[1:]...)...)
	case err != nil:
		found = append(found, skipped("the database does not name a pool: "+err.Error(), poolChecks...)...)
	default:
		found = append(found, m.pool(row)...)
		found = append(found, m.poolFiles(row), udev(row.Data), lvm(ctx, row.Data))
	}
	return found
}

// database opens the database, and reads it whole. The caller closes it.
func (m *Machine) database(ctx context.Context) (*store.Store, Finding) {
	const check = "database"
	if _, err := os.Stat(m.Database); errors.Is(err, fs.ErrNotExist) {
		return nil, m.noDatabase()
	} else if err != nil {
		return nil, warn(check, notRoot, "%s cannot be read: %v", m.Database, errors.Unwrap(err))
	}
	st, err := store.OpenReadOnly(ctx, m.Database)
	if err == nil {
		if err = st.Check(ctx); err != nil {
			st.Close()
		}
	}
	switch {
	case store.Corrupt(err):
		return nil, fail(check,
			"stop the daemon, move consumer.db, consumer.db-wal and consumer.db-shm away, and put the "+
				"newest `consumer backup` there, or run `consumer recover`", "%v", err)
	case errors.Is(err, store.ErrNewer):
		return nil, fail(check, "install the version that wrote it, or a newer one", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, warn(check, notRoot, "%s cannot be read", m.Database)
	case err != nil:
		return nil, warn(check, "start the daemon once, which opens it for writing", "%v", err)
	}
	return st, databaseSize(ctx, st)
}

// noDatabase tells a new machine from one that lost its database.
func (m *Machine) noDatabase() Finding {
	const check = "database"
	metadata := filepath.Join(m.StateDir, "pool", "metadata.img")
	if has, err := devmapper.HasSuperblock(metadata); err == nil && has {
		return fail(check, "consumer recover", "there is no %s, and %s holds a pool", m.Database, metadata)
	}
	return fail(check, "consumer pool create; if a database was lost and the pool is on devices, `consumer recover`",
		"there is no %s", m.Database)
}

func databaseSize(ctx context.Context, st *store.Store) Finding {
	const check = "database"
	is, err := st.Size(ctx)
	if err != nil {
		return warn(check, "look at the disk", "%v", err)
	}
	if is.WALBytes > mostWAL {
		return warn(check,
			"end programs that hold consumer.db open (`fuser -v`), and start the daemon again",
			"sound, %s; its WAL has %s and cannot be written back", size(is.Bytes), size(is.WALBytes))
	}
	return ok(check, "sound: %s, %d images, %d events", size(is.Bytes), is.Images, is.Events)
}

// pool asks the kernel for the pool. One that is detached stays so.
func (m *Machine) pool(row store.Pool) []Finding {
	const check = "pool"
	if !isRoot() {
		return skippedWithoutRoot(check, "pool-space")
	}
	cfg := devmapper.Config{
		Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata, BlockSize: row.BlockSize,
	}
	s, err := devmapper.Look(cfg)
	if errors.Is(err, devmapper.ErrNotFound) {
		return []Finding{m.detached(row), skipped("the pool is not active", "pool-space")[0]}
	}
	zeroes, errTable := devmapper.Zeroes(cfg)
	if err := errors.Join(err, errTable); err != nil {
		return skipped(err.Error(), check, "pool-space")
	}
	return []Finding{judgePool(row.Name, s, zeroes), m.space(s)}
}

// judgePool judges an active pool.
func judgePool(name string, s devmapper.Status, zeroes bool) Finding {
	const check = "pool"
	switch {
	case s.NeedsCheck || s.Mode == devmapper.ModeReadOnly || s.Mode == devmapper.ModeFailed:
		return fail(check, "stop the daemon, and run `consumer pool repair`",
			"%s is %s, and its metadata need a check: %t", name, s.Mode, s.NeedsCheck)
	case !zeroes:
		return fail(check, "`consumer pool detach`, and start the daemon: it activates the pool as it must be",
			"%s does not zero new blocks: deleted data would show up in other images", name)
	}
	return ok(check, "%s is active and %s, and zeroes new blocks", name, s.Mode)
}

// detached looks whether an inactive pool can be attached.
func (m *Machine) detached(row store.Pool) Finding {
	const check = "pool"
	for _, path := range []string{row.Metadata, row.Data} {
		if _, err := os.Stat(path); err != nil {
			return fail(check,
				"bring it back; if the kernel gave disks other names, `consumer pool locate`; if it is lost, "+
					"`consumer pool create --replace`", "%s of pool %s is not there", path, row.Name)
		}
	}
	if has, err := devmapper.HasSuperblock(row.Metadata); err == nil && !has {
		return fail(check, "bring the right one back, or `consumer pool locate`",
			"%s does not hold the metadata of a pool",
			row.Metadata)
	}
	return warn(check, "`consumer run` attaches it", "%s is detached", row.Name)
}

// space holds the free space of the pool to what the daemon keeps free.
func (m *Machine) space(s devmapper.Status) Finding {
	const check = "pool-space"
	data, metadata := freePercent(s.UsedData, s.TotalData), freePercent(s.UsedMetadata, s.TotalMetadata)
	text := fmt.Sprintf("%.1f %% of %s of data and %.1f %% of %s of metadata are free",
		data, size(s.TotalData), metadata, size(s.TotalMetadata))
	switch {
	case data < m.MinFreeData:
		return fail(check, fmt.Sprintf("consumer pool grow --data-size %s", twice(s.TotalData)),
			"%s; the daemon takes nothing below %g %% (POOL_MIN_FREE_DATA)", text, m.MinFreeData)
	case metadata < m.MinFreeMetadata:
		return fail(check, fmt.Sprintf("consumer pool grow --metadata-size %s", twice(s.TotalMetadata)),
			"%s; the daemon takes nothing below %g %% (POOL_MIN_FREE_METADATA)", text, m.MinFreeMetadata)
	}
	return ok(check, "%s", text)
}

func freePercent(used, total int64) float64 {
	return 100 * float64(total-used) / float64(max(total, 1))
}

// twice is a size to grow to.
func twice(bytes int64) string { return fmt.Sprintf("%dMiB", bytes>>19) }

// skippedWithoutRoot returns a warning for each check that only root can make.
func skippedWithoutRoot(checks ...string) (found []Finding) {
	for _, check := range checks {
		found = append(found, warn(check, notRoot, "not seen without root"))
	}
	return found
}
