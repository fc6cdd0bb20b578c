package powercut

import (
	"slices"
	"testing"

	"imagemanager.internal/test/cloud"
)

// bucket is part of every image's identity: the same in all states.
const bucket = "powercut"

// newCloud makes an S3 and SQS that lose nothing when the host's power fails.
func newCloud(t *testing.T, deleting func(key string)) *cloud.Bucket {
	t.Helper()
	c, err := cloud.Emulate(t.TempDir(), deleting)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	b, err := c.Bucket(t.Context(), bucket)
	check(t, err)
	return b
}

func (h *host) put(images ...image) {
	h.T.Helper()
	for _, img := range images {
		check(h.T, h.Cloud.Put(h.T.Context(), img.key, img.archive))
	}
}

// cloudAs makes the cloud as it stood when the power failed: every object is there, and a
// message about those whose message was not deleted.
func (h *host) cloudAs(deleted []string) {
	h.T.Helper()
	for _, img := range images() {
		if slices.Contains(deleted, img.key) {
			h.put(img)
		}
	}
	check(h.T, h.Cloud.Notify(h.T.Context()))
	for _, img := range images() {
		if !slices.Contains(deleted, img.key) {
			h.put(img)
		}
	}
}
