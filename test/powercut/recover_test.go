package powercut

import (
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/disks"
)

// checkRecovery starts the host on the disk that a power cut left, and checks what it had
// promised and what becomes of it.
func checkRecovery(t *testing.T, mnt, disk string, marks []string) {
	size := dataSize
	if slices.Contains(marks, markLarger) {
		size = grownSize
	}
	h := newHost(t, mnt, disks.Attach(t, disk), size, func(string) {})
	pool := h.checkPromises(marks)
	if t.Failed() { // what was promised is not there: there is nothing to recover it from
		return
	}
	if !pool {
		h.createPool() // as the operator would, who has not seen it succeed
	}
	var deleted []string
	for _, m := range marks {
		if key, ok := strings.CutPrefix(m, markDeleted); ok {
			deleted = append(deleted, key)
		}
	}
	h.Cloud = newCloud(t, func(string) {})
	h.cloudAs(deleted)
	h.OpenStore()
	h.Start()
	h.waitImages(images()...)
	h.Stop()
	h.checkInvariants()
}
