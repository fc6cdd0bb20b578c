package store

import (
	"crypto/rand"
	"encoding/hex"
)

// newTraceID returns the id of a trace: 16 random bytes in hex. An image gets it when it
// is made, so every process that works on the image logs the same.
func newTraceID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}
