package direct

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"

	"imagemanager.internal/internal/archive"
)

const (
	bufferSize  = 512 << 10
	bufferCount = 8 // filled, hashed, and being written
	writerCount = 3 // so that the device has a write to do while the next is prepared
	readerCount = 2 // of what has been written; one compares while the device reads for the other
)

// stream writes blocks to a device. Its user fills buffers, each for blocks in a row.
// Behind it, one goroutine takes the digests of files, others write, and others read back
// what has been written and compare.
type stream struct {
	device  blockDevice
	verify  bool
	cancel  context.CancelCauseFunc
	failure atomic.Pointer[error] // the first
	current *buffer
	memory  [][]byte

	free    chan *buffer // all channels have room for all buffers, so no send waits
	hashing chan *buffer
	writing chan *buffer
	written chan *buffer

	hashes, writers, readers sync.WaitGroup
	unhashed                 sync.WaitGroup // buffers
}

// buffer is data for blocks in a row.
type buffer struct {
	memory []byte
	used   int // bytes
	size   int // bytes that it may take
	block  uint64
	pieces []piece
	users  atomic.Int32 // the hashing, and the writing with the reading back
}

func (b *buffer) offset() int64 { return int64(b.block) * blockSize }

// piece is data of a file.
type piece struct {
	data []byte
	sum  *[sha256.Size]byte
	last bool
}

// startStream returns a stream, and a context that ends with its first failure.
func startStream(ctx context.Context, device blockDevice, verify bool) (context.Context, *stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{
		device: device, verify: verify, cancel: cancel,
		free: make(chan *buffer, bufferCount), hashing: make(chan *buffer, bufferCount),
		writing: make(chan *buffer, bufferCount), written: make(chan *buffer, bufferCount),
	}
	for range bufferCount + readerCount {
		if err := s.allocate(); err != nil {
			s.close()
			return nil, nil, err
		}
	}
	for _, memory := range s.memory[:bufferCount] {
		s.free <- &buffer{memory: memory}
	}
	for _, memory := range s.memory[bufferCount:] {
		s.readers.Go(func() { s.run(func() error { return s.readBack(ctx, memory) }) })
	}
	for range writerCount {
		s.writers.Go(func() { s.run(func() error { return s.writeBuffers(ctx) }) })
	}
	s.hashes.Go(func() { s.run(s.takeDigests) })
	return ctx, s, nil
}

func (s *stream) allocate() error {
	b, err := alignedMemory(bufferSize)
	if err == nil {
		s.memory = append(s.memory, b)
	}
	return err
}

// run calls what a goroutine does until it ends without an error. After one, the
// goroutine goes on to empty its channel.
func (s *stream) run(do func() error) {
	for {
		err := archive.CatchPanic(do)
		if err == nil {
			return
		}
		s.fail(err)
	}
}

// fail ends the stream's context. The first error counts.
func (s *stream) fail(err error) {
	s.failure.CompareAndSwap(nil, &err)
	s.cancel(err)
}

// err returns the first error, or nil.
func (s *stream) err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// reserve returns memory for blocks from one on: for as many as fit, and at most the
// given number. The caller fills all of it before the next call. Buffers end at multiples
// of their size on the device, so no chunk of a thin pool is written in two parts for no
// reason.
func (s *stream) reserve(ctx context.Context, block, blocks uint64) ([]byte, error) {
	b := s.current
	if b != nil && (b.used == b.size || b.block+uint64(b.used/blockSize) != block) {
		s.flush()
		b = nil
	}
	if b == nil {
		select {
		case b = <-s.free:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		b.used, b.block, b.pieces = 0, block, b.pieces[:0]
		b.size = bufferSize - int(block%(bufferSize/blockSize))*blockSize
		s.current = b
	}
	n := min(blocks*blockSize, uint64(b.size-b.used))
	memory := b.memory[b.used:][:n]
	b.used += int(n)
	return memory, nil
}

// block is reserve for one block, which is zeroed.
func (s *stream) block(ctx context.Context, block uint64) ([]byte, error) {
	b, err := s.reserve(ctx, block, 1)
	clear(b)
	return b, err
}

// hash adds data of a file to its digest. They are what reserve returned last. The data
// of a file come in order and one file after the other.
func (s *stream) hash(data []byte, sum *[sha256.Size]byte, last bool) {
	s.current.pieces = append(s.current.pieces, piece{data, sum, last})
}

// flush hands the current buffer on.
func (s *stream) flush() {
	b := s.current
	s.current = nil
	if b == nil {
		return
	}
	b.users.Store(1)
	if len(b.pieces) > 0 {
		b.users.Store(2)
		s.unhashed.Add(1)
		s.hashing <- b
	}
	s.writing <- b
}

// done gives back a buffer that the last user is done with.
func (s *stream) done(b *buffer) {
	if b.users.Add(-1) == 0 {
		s.free <- b
	}
}

// waitForHashes returns when the digests of all files are there.
func (s *stream) waitForHashes(ctx context.Context) error {
	s.flush()
	s.unhashed.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (s *stream) takeDigests() error {
	var large hash.Hash // of a file in more than one piece
	for b := range s.hashing {
		large = s.takeDigestsOf(b, large)
	}
	return nil
}

// takeDigestsOf takes the digests of the files in a buffer. large is the state of a file
// that began in an earlier one, or nil; it returns that of a file that goes on.
func (s *stream) takeDigestsOf(b *buffer, large hash.Hash) hash.Hash {
	defer s.unhashed.Done()
	defer s.done(b)
	for _, p := range b.pieces {
		if large == nil && p.last {
			*p.sum = sha256.Sum256(p.data)
			continue
		}
		if large == nil {
			large = sha256.New()
		}
		large.Write(p.data)
		if p.last {
			large.Sum(p.sum[:0])
			large = nil
		}
	}
	return large
}

func (s *stream) writeBuffers(ctx context.Context) error {
	for b := range s.writing {
		if err := s.writeBuffer(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// writeBuffer writes a buffer, unless the context has ended. Then it hands the buffer on
// to be read back, or is done with it: from there on the buffer is another's.
func (s *stream) writeBuffer(ctx context.Context, b *buffer) error {
	next := s.done
	defer func() { next(b) }()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := s.device.WriteAt(b.memory[:b.used], b.offset()); err != nil {
		return fmt.Errorf("%d bytes at byte %d: %w", b.used, b.offset(), err)
	}
	if s.verify {
		next = func(b *buffer) { s.written <- b } // somebody reads until the channel is closed
	}
	return nil
}

// readBack compares what the device gives back with what was written.
func (s *stream) readBack(ctx context.Context, memory []byte) error {
	for b := range s.written {
		if err := s.compare(ctx, b, memory[:b.used]); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) compare(ctx context.Context, b *buffer, have []byte) error {
	defer s.done(b)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := s.device.ReadAt(have, b.offset()); err != nil {
		return fmt.Errorf("read back %d bytes at byte %d: %w", b.used, b.offset(), err)
	}
	if !bytes.Equal(have, b.memory[:b.used]) {
		return fmt.Errorf("%d bytes at byte %d: %w", b.used, b.offset(), ErrVerify)
	}
	return nil
}

// drain writes the rest, and waits until all is written. err is the user's own failure;
// then nothing more is written.
func (s *stream) drain(err error) error {
	if err != nil {
		s.fail(err)
	}
	s.flush()
	close(s.writing)
	close(s.hashing)
	s.writers.Wait()
	s.hashes.Wait()
	close(s.written)
	return s.err()
}

// verified waits until all is read back.
func (s *stream) verified() error {
	s.readers.Wait()
	return s.err()
}

// close ends the reading back, and frees the buffers. It is called after drain.
func (s *stream) close() {
	s.cancel(nil)
	s.readers.Wait()
	for _, b := range s.memory {
		freeMemory(b)
	}
	s.memory = nil
}
