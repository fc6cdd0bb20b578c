package provision

import "sync/atomic"

// Progress is how far the current attempt at a stage has come, in bytes. It may be read
// at any time. A nil Progress takes everything and keeps nothing.
type Progress struct{ done, total atomic.Int64 }

// Bytes returns what is done, and of how much. The total is 0 while it is not known.
func (p *Progress) Bytes() (done, total int64) {
	if p == nil {
		return 0, 0
	}
	return p.done.Load(), p.total.Load()
}

func (p *Progress) set(done, total int64) {
	if p != nil {
		p.done.Store(done)
		p.total.Store(total)
	}
}
