package devmapper

import (
	"errors"
	"fmt"
	"os"
)

// RaiseGeneration raises the generation of data and metadata, and returns it. From then on, a copy
// that was made of either before is no part of the pool. It is durable when it returns,
// and a crash within does no harm. ErrReadOnly says that the pool takes no changes; then,
// and on any other error, the generation may be as it was.
func (p *Pool) RaiseGeneration() (generation uint64, err error) {
	unlock, err := lockPool(p.cfg)
	if err != nil {
		return 0, fmt.Errorf("renew the stamp of pool %s: %w", p.cfg.Name, err)
	}
	defer unlock()
	if generation, err = p.raiseGeneration(); err != nil {
		return 0, fmt.Errorf("renew the stamp of pool %s: %w", p.cfg.Name, err)
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
	f, err := p.openData(os.O_RDWR)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	stamp, err := p.stampOf(f, s.TransactionID)
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

// stampOf reads the stamp of the data, which must belong to metadata of this generation.
func (p *Pool) stampOf(data *os.File, generation uint64) (dataStamp, error) {
	stamp, ok, err := readStamp(data, p.stampAt[:]...)
	if err != nil {
		return stamp, fmt.Errorf("%s: %w", p.cfg.Data, err)
	}
	return stamp, stamp.check(ok, p.cfg, generation)
}

// openData opens what the pool's data lie on, past the page cache. The name may stand for
// another device by now.
func (p *Pool) openData(flags int) (*os.File, error) {
	f, err := openDirect(p.data.path, flags)
	if err != nil {
		return nil, err
	}
	b, err := describe(f)
	if err == nil && b.dev != p.data.dev {
		err = fmt.Errorf("%w: %s is another device by now", ErrForeign, p.data.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
