package pipeline

import (
	"context"
	"fmt"
	"time"
)

// reservation is what running unpacks may still write to the pool. Pipeline.mu guards it.
type reservation struct {
	jobs  int
	bytes int64
}

// reserve sets aside the pool space that an image will need, data and metadata, before its device is made, and returns what gives it
// back. While other images hold theirs it waits; an image for which there is no room even then is errPoolLow. What a running unpack
// has written already counts twice: the sum is never too small.
func (p *Pipeline) reserve(ctx context.Context, need int64) (release func(), err error) {
	for {
		s, err := p.Pool.Status()
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		data := s.TotalData - s.UsedData - p.held.bytes
		metadata := s.TotalMetadata - s.UsedMetadata - metadataFor(p.held.bytes)
		fits, alone := need <= data && metadataFor(need) <= metadata, p.held.jobs == 0
		if fits {
			p.held.jobs++
			p.held.bytes += need
		}
		p.mu.Unlock()
		switch {
		case fits:
			return func() { p.release(need) }, nil
		case alone:
			return nil, fmt.Errorf("%w: the image needs about %d bytes of data and %d of metadata, %d and %d are free", errPoolLow, need, metadataFor(need), data, metadata)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		wait(ctx, time.Second)
	}
}

func (p *Pipeline) release(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held.jobs--
	p.held.bytes -= bytes
}

// metadataFor is how much metadata so many bytes of data need, by the kernel's rule for sizing a pool: 48 bytes for each block, here of
// 64 KiB, the smallest. Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst.
func metadataFor(bytes int64) int64 { return bytes / (64 << 10) * 48 }
