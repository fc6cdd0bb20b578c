package devmapper

import (
	"fmt"
	"os"
)

// RaiseGeneration raises the generation of data and metadata, and returns it. From then
// on, an earlier copy of either is refused. The generation is durable when
// RaiseGeneration returns, and a crash in between does no harm. ErrReadOnly is returned
// when the pool takes no changes. After this or another error, the generation may be as
// it was.
func (p *Pool) RaiseGeneration() (generation uint64, err error) {
	unlock, err := lockPool(p.cfg)
	if err != nil {
		return 0, fmt.Errorf("raise the generation of pool %s: %w", p.cfg.Name, err)
	}
	defer unlock()
	if generation, err = p.raiseGeneration(); err != nil {
		return 0, fmt.Errorf("raise the generation of pool %s: %w", p.cfg.Name, err)
	}
	return generation, nil
}

func (p *Pool) raiseGeneration() (uint64, error) {
	s, err := p.Status()
	if err != nil {
		return 0, err
	}
	if err := s.checkWritable(); err != nil {
		return 0, err
	}
	f, err := p.data.reopen(os.O_RDWR)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	stamp, err := checkStamp(p.cfg, f, p.stampAt, s.TransactionID)
	if err != nil {
		return 0, err
	}
	stamp.generation, stamp.next = s.TransactionID, max(stamp.next, s.TransactionID)+1
	stamp.number++
	if err := stamp.write(f, p.stampAt[stamp.place()]); err != nil {
		return 0, err
	}
	if err := p.message(fmt.Sprintf("set_transaction_id %d %d", stamp.generation, stamp.next)); err != nil {
		return 0, err
	}
	stamp.generation = stamp.next
	stamp.number++
	return stamp.generation, stamp.write(f, p.stampAt[stamp.place()])
}
