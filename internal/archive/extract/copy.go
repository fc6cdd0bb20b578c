package extract

import (
	"context"
	"crypto/sha256"
	"io"

	"imagemanager.internal/internal/archive/fstree"
)

// copyFile copies a file's data from the archive to fd and returns their SHA-256. It
// hashes the same bytes in memory that it writes.
func copyFile(ctx context.Context, b *bufferPair, src io.ReaderAt, n *fstree.Node, fd int,
	advance func(int),
) (sum [32]byte, err error) {
	switch {
	case ctx.Err() != nil:
		return sum, context.Cause(ctx)
	case n.Size == 0:
		return sha256.Sum256(nil), nil
	case n.Size > bufferSize:
		return copyLargeFile(ctx, b, src, n, fd, advance)
	}
	data := b[0][:n.Size]
	if err := n.ReadData(src, data, 0); err != nil {
		return sum, err
	}
	sum = sha256.Sum256(data)
	err = writeAll(fd, data)
	advance(len(data))
	return sum, err
}

// copyLargeFile hashes one buffer beside the writing of it and the reading of the next.
func copyLargeFile(ctx context.Context, b *bufferPair, src io.ReaderAt, n *fstree.Node, fd int,
	advance func(int),
) (sum [32]byte, err error) {
	hash := newHasher()
	defer hash.wait()
	f := openData(fd, n.Size)
	if err := f.allocate(n.Size); err != nil {
		return sum, err
	}
	for done, k := int64(0), 0; done < n.Size; k ^= 1 {
		if ctx.Err() != nil {
			return sum, context.Cause(ctx)
		}
		data := b[k][:min(n.Size-done, bufferSize)]
		if err := n.ReadData(src, data, done); err != nil {
			return sum, err
		}
		if err := hash.add(data, true); err != nil {
			return sum, err
		}
		if err := f.write(data); err != nil {
			return sum, err
		}
		done += int64(len(data))
		advance(len(data))
	}
	return hash.sum()
}
