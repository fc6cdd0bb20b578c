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

// world is S3 and SQS during one boot, and the host that uses them.
type world struct {
	*cloud.Bucket // of the present host
	cloud         *cloud.Cloud
	host          *host

	mu sync.Mutex
}

// theWorld returns the emulator of this boot.
func theWorld(t *testing.T) *world {
	t.Helper()
	needGuest(t)
	if book.world != nil {
		return book.world
	}
	w := &world{}
	var err error
	w.cloud, err = cloud.Emulate(os.TempDir(), w.deleting)
	if err != nil {
		t.Fatal(err)
	}
	book.world = w
	return w
}

// deleting writes it into the ledger before the message is gone.
func (w *world) deleting(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	book.Deleted[key] = true
	book.save()
}

// isDeleted tells whether the daemon has deleted a message about the key.
func (w *world) isDeleted(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return book.Deleted[key]
}

// must is for what cannot fail unless this program is wrong.
func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // in a handler there is no test to fail
	}
}

// open makes bucket and queue of the present host. After a reboot it gets its objects
// back without a word to the queue: whose message is still to come is told by redeliver.
func (w *world) open(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var err error
	w.Bucket, err = w.cloud.Bucket(ctx, fmt.Sprintf("crash-%d", book.Hosts))
	check(t, err)
	for _, key := range book.Keys {
		w.upload(t, key)
	}
	check(t, w.Notify(ctx))
	check(t, w.Purge(ctx)) // of the test event: every start is to have the same to do
}

// put uploads a new object.
func (w *world) put(t *testing.T, key string) {
	t.Helper()
	if !slices.Contains(book.Keys, key) {
		book.Keys = append(book.Keys, key)
		book.save()
	}
	w.upload(t, key)
}

// upload uploads the object that the key stands for: images/<files>-<name>.tar, with so
// many files. The queue is told.
func (w *world) upload(t *testing.T, key string) {
	t.Helper()
	check(t, w.Put(t.Context(), key, image(key)))
}

// refused tells whether the key stands for no archive at all.
func refused(key string) bool { return strings.HasPrefix(key, "images/refused-") }

// image is a root file system whose etc/hello holds the key.
func image(key string) []byte {
	if refused(key) {
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
		book.failed(t, err.Error())
		t.Fatal(err)
	}
}
