package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// condition remembers what an operator asks first: is it taking work, and if not, why.
type condition struct {
	mu      sync.Mutex
	paused  error // why intake takes nothing, nil when it does
	journal error // of the last write to the database, if it cannot be written
	pollErr error // of the last poll
	pool    error // why the pool's parts do not belong together, as of the last reconcile
	foreign foreign
	logged  map[queue.Class]time.Time
	ended   map[verdict]int // jobs since the start
}

// count notes how a job ended.
func (c *condition) count(v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = map[verdict]int{}
	}
	c.ended[v]++
}

// summary is one line about all that was done.
func (c *condition) summary(log *zerolog.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for v, n := range c.ended {
		log, total = log.Int(string(v), n), total+n
	}
	log.Int("jobs", total).Msg("stopped")
}

func (c *condition) pause(why error) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = (c.paused == nil) != (why == nil)
	c.paused = why
	return changed
}

// unwritable notes that the database cannot be written.
func (c *condition) unwritable(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal = err
}

// proved notes whether the pool's parts still prove that they belong together.
func (c *condition) proved(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool = nil
	if errors.Is(err, devmapper.ErrForeign) {
		c.pool = err
	}
}

func (c *condition) wrongPool() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool
}

func (c *condition) database() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.journal
}

func (c *condition) polled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pollErr = nil
}

// failed notes a failed poll and tells whether it is time for a log line of its class.
func (c *condition) failed(class queue.Class, at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pollErr = fmt.Errorf("receiving messages fails: %s", class)
	if c.logged == nil {
		c.logged = map[queue.Class]time.Time{}
	}
	if last, ok := c.logged[class]; ok && at.Sub(last) < 10*time.Second {
		return false
	}
	c.logged[class] = at
	return true
}

// Ready tells whether the pipeline takes work, and if not, why and what to do. It is
// cheap.
func (p *Pipeline) Ready() error {
	p.condition.mu.Lock()
	defer p.condition.mu.Unlock()
	for _, err := range []error{p.condition.paused, p.condition.pollErr, p.breaker.why(), p.condition.foreign.why()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// watch looks once a second whether the machine is fit for work, and once it was not,
// whether it is again.
func (p *Pipeline) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if p.condition.database() != nil {
			if err := p.Store.Probe(ctx); err == nil || !store.Unwritable(err) && !store.Busy(err) {
				p.condition.unwritable(nil)
			}
		}
		if p.breaker.due() {
			_ = p.lookAtBucket(ctx) // the breaker keeps what it said
		}
		p.admit()
		wait(ctx, time.Second)
	}
}

// admit reports whether new work may be taken: database, disk and pool must be writable
// and have their reserves, and the bucket must answer. While not, messages stay in the
// queue.
func (p *Pipeline) admit() bool {
	why := p.room()
	if why == nil {
		why = p.breaker.outage()
	}
	if id := p.lonely(); why == nil && id != 0 {
		why = fmt.Errorf("image %d, at which processes died, is tried alone", id)
	}
	if p.condition.pause(why) {
		if why != nil {
			p.Log.Error().Err(why).Msg("intake paused")
		} else {
			p.Log.Info().Msg("intake resumed")
		}
	}
	return why == nil
}

// fit says what the machine lacks for any work, and what to do about it.
func (p *Pipeline) fit() error {
	if err := p.condition.database(); err != nil {
		return fmt.Errorf("%w: %w: see to the disk under %s; work goes on by itself once a write succeeds",
			errDatabase, err, p.cfg.StateDir)
	}
	if err := p.condition.wrongPool(); err != nil {
		return fmt.Errorf("the pool does not prove itself any more, and the next start would refuse it: %w", err)
	}
	if err := p.diskRoom(); err != nil {
		return err
	}
	if err := p.settles(); err != nil {
		return err
	}
	return p.poolRoom()
}

// leastFreeDisk is what a file system must have free whatever the reserve: with less, not
// even the smallest image gets through, and the failure would be counted as its own.
const leastFreeDisk = 1 << 20

// diskRoom checks the reserve of the file systems that hold our files.
func (p *Pipeline) diskRoom() error {
	least := max(p.cfg.MinFreeDisk, leastFreeDisk)
	for _, dir := range p.cfg.Disks {
		_, free, err := freeUnder(dir)
		if err != nil {
			return fmt.Errorf("%w: %w", errDiskLow, err)
		}
		if free < least {
			return fmt.Errorf("%w: %d MiB are free under %s, "+
				"%d MiB are the reserve (STATE_MIN_FREE): make room there, or enlarge it",
				errDiskLow, free>>20, dir, least>>20)
		}
	}
	return nil
}

func (p *Pipeline) poolRoom() error {
	s, err := p.Pool.Status()
	if err != nil {
		return fmt.Errorf("thin pool does not answer: %w", err)
	}
	p.metrics.pool(s)
	freeData := 1 - float64(s.UsedData)/float64(s.TotalData)
	freeMetadata := 1 - float64(s.UsedMetadata)/float64(s.TotalMetadata)
	switch {
	case cannotChange(s) != nil:
		return cannotChange(s)
	case s.Mode == devmapper.ModeOutOfDataSpace || freeData < p.cfg.MinFreeData:
		return fmt.Errorf("%w: %.1f %% of its data is free, %.1f %% is the reserve: `consumer pool grow --data-size` adds space", errPoolLow, 100*freeData, 100*p.cfg.MinFreeData)
	case freeMetadata < p.cfg.MinFreeMetadata:
		return fmt.Errorf("%w: %.1f %% of its metadata is free, %.1f %% is the reserve: `consumer pool grow --metadata-size` adds space", errPoolLow, 100*freeMetadata, 100*p.cfg.MinFreeMetadata)
	}
	return nil
}

// cannotChange says why a pool takes no changes at all, and what to do; nil if it does.
func cannotChange(s devmapper.Status) error {
	if !s.NeedsCheck && (s.Mode == devmapper.ModeReadWrite || s.Mode == devmapper.ModeOutOfDataSpace) {
		return nil
	}
	return fmt.Errorf("%w: it is %s, needs a check: %t, metadata %d of %d bytes: stop the daemon and run `consumer pool repair`",
		devmapper.ErrReadOnly, s.Mode, s.NeedsCheck, s.UsedMetadata, s.TotalMetadata)
}
