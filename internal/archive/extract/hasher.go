package extract

import (
	"crypto/sha256"
	"hash"
	"sync"

	"imagemanager.internal/internal/archive"
)

// hasher takes the SHA-256 of data while they are read or written.
type hasher struct {
	hash    hash.Hash
	running sync.WaitGroup
	err     error
}

func newHasher() *hasher { return &hasher{hash: sha256.New()} }

// add hashes the next data. With background set it returns at once, and the data must not
// change until the next call of a method has returned.
func (h *hasher) add(data []byte, background bool) error {
	h.running.Wait()
	if h.err != nil {
		return h.err
	}
	if !background {
		h.hash.Write(data)
		return nil
	}
	h.running.Go(func() {
		h.err = archive.CatchPanic(func() error { _, err := h.hash.Write(data); return err })
	})
	return nil
}

// wait returns when no data are being hashed.
func (h *hasher) wait() { h.running.Wait() }

// sum returns the digest of all data.
func (h *hasher) sum() ([32]byte, error) {
	h.running.Wait()
	if h.err != nil {
		return [32]byte{}, h.err
	}
	return [32]byte(h.hash.Sum(nil)), nil
}
