package archive

import (
	"crypto/sha256"
	"hash"
	"sync"
)

// hasher takes a SHA-256 beside the reading or writing of the same bytes.
type hasher struct {
	hash    hash.Hash
	running sync.WaitGroup
	err     error
}

func newHasher() *hasher { return &hasher{hash: sha256.New()} }

// add hashes data after what was added before. With beside it returns at once, and the
// data may not be changed until the next call has returned.
func (h *hasher) add(data []byte, beside bool) error {
	h.running.Wait()
	if h.err != nil {
		return h.err
	}
	if !beside {
		h.hash.Write(data)
		return nil
	}
	h.running.Go(func() {
		h.err = guarded(func() error { _, err := h.hash.Write(data); return err })
	})
	return nil
}

// wait returns when nothing is being hashed any more.
func (h *hasher) wait() { h.running.Wait() }

// sum is the digest of all that was added.
func (h *hasher) sum() ([32]byte, error) {
	h.running.Wait()
	if h.err != nil {
		return [32]byte{}, h.err
	}
	return [32]byte(h.hash.Sum(nil)), nil
}
