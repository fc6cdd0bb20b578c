package crash

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"imagemanager.internal/test/cloud"
	tarballs "imagemanager.internal/test/images"
)

// testbed is S3 and SQS during one boot, and the host that uses them.
type testbed struct {
	*cloud.Bucket // of the present host
	cloud         *cloud.Cloud
	host          *host

	mu sync.Mutex
}

// theTestbed returns the testbed of this boot.
func theTestbed(t *testing.T) *testbed {
	t.Helper()
	needGuest(t)
	if saved.testbed != nil {
		return saved.testbed
	}
	w := &testbed{}
	var err error
	w.cloud, err = cloud.Emulate(os.TempDir(), w.recordDeletion)
	if err != nil {
		t.Fatal(err)
	}
	saved.testbed = w
	return w
}

// recordDeletion records the deletion before the message is gone.
func (w *testbed) recordDeletion(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	saved.Deleted[key] = true
	saved.save()
}

// isDeleted reports whether the daemon has deleted a message about the key.
func (w *testbed) isDeleted(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return saved.Deleted[key]
}

// must is for what cannot fail unless this program is wrong.
func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // a handler has no test to fail
	}
}

// open makes bucket and queue of the present host. After a reboot the objects are
// uploaded again without events: waitSettled redelivers the messages that are due.
func (w *testbed) open(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var err error
	w.Bucket, err = w.cloud.Bucket(ctx, fmt.Sprintf("crash-%d", saved.Hosts))
	check(t, err)
	for _, key := range saved.Keys {
		w.upload(t, key)
	}
	check(t, w.Notify(ctx))
	check(t, w.Purge(ctx)) // of the test event: every start shall have the same work
}

// put uploads a new object.
func (w *testbed) put(t *testing.T, key string) {
	t.Helper()
	if !slices.Contains(saved.Keys, key) {
		saved.Keys = append(saved.Keys, key)
		saved.save()
	}
	w.upload(t, key)
}

// upload uploads the object that the key stands for: images/<files>-<name>.tar is an
// archive with this number of files. An event follows.
func (w *testbed) upload(t *testing.T, key string) {
	t.Helper()
	check(t, w.Put(t.Context(), key, archiveOf(key)))
}

// isRefused reports whether the key stands for something that is not an archive.
func isRefused(key string) bool { return strings.HasPrefix(key, "images/refused-") }

// archiveOf is a root file system whose etc/hello holds the key.
func archiveOf(key string) []byte {
	if isRefused(key) {
		return []byte(key)
	}
	var files int
	_, err := fmt.Sscanf(key, "images/%d-", &files)
	must(err)
	return tarballs.RootFS(key, files)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		saved.failed(t, err.Error())
		t.Fatal(err)
	}
}
