package pipeline

import (
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/queue"
)

// condition remembers what an operator asks first: is it taking work, and if not, why.
type condition struct {
	mu      sync.Mutex
	paused  error // why intake takes nothing, nil when it does
	pollErr error // of the last poll
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

// Ready tells whether the pipeline takes work, and if not, why and what to do. It is cheap.
func (p *Pipeline) Ready() error {
	p.condition.mu.Lock()
	defer p.condition.mu.Unlock()
	if p.condition.paused != nil {
		return p.condition.paused
	}
	return p.condition.pollErr
}

// admit tells whether new work may be taken: the pool must be writable and have its reserve of data and metadata. While not,
// messages stay in the queue.
func (p *Pipeline) admit() bool {
	why := p.room()
	if p.condition.pause(why) {
		if why != nil {
			p.Log.Error().Err(why).Msg("intake paused")
		} else {
			p.Log.Info().Msg("intake resumed")
		}
	}
	return why == nil
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
