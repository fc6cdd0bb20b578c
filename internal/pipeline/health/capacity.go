package health

import (
	"fmt"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
)

// leastFreeDisk is what a file system must have free whatever the reserve. With less, not
// even the smallest image gets through, and the failure would be counted as its own.
const leastFreeDisk = 1 << 20

// checkCapacity looks at all that work needs. It looks at the rest even if something is
// amiss: metrics tell of each, and an operator may have to see to several.
func (m *Monitor) checkCapacity() Reasons {
	lacks := Reasons{
		Database: m.checkDatabase(), PoolForeign: m.checkProof(), DiskLow: m.diskCapacity(), Settle: m.checkSettling(),
	}
	s, err := m.deps.PoolStatus()
	if err != nil {
		lacks[PoolGone] = fmt.Errorf("thin pool does not answer: %w: start the daemon again, it attaches the pool", err)
		return lacks
	}
	m.notePool(s)
	m.deps.OnPoolStatus(s)
	lacks[PoolReadOnly], lacks[PoolLow] = provision.CheckWritable(s), m.poolCapacity(s)
	return lacks
}

func (m *Monitor) checkDatabase() error {
	err := m.JournalError()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w: see to the disk under %s; work goes on by itself once a write succeeds",
		errDatabase, err, m.cfg.StateDir)
}

func (m *Monitor) checkProof() error {
	err := m.poolProof()
	if err == nil {
		return nil
	}
	return fmt.Errorf("the pool does not prove itself any more, and the next start would refuse it: %w", err)
}

// diskCapacity checks the reserve of every file system with our files, and returns the
// first error.
func (m *Monitor) diskCapacity() (first error) {
	for _, dir := range m.cfg.Disks {
		if err := m.checkDisk(dir); first == nil {
			first = err
		}
	}
	return first
}

func (m *Monitor) checkDisk(dir string) error {
	least := max(m.cfg.MinFreeDisk, leastFreeDisk)
	_, free, err := provision.FreeUnder(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", provision.ErrDiskLow, err)
	}
	m.deps.OnDisk(dir, free, least)
	if free < least {
		return fmt.Errorf("%w: %d MiB are free under %s, %d MiB are the reserve (STATE_MIN_FREE): "+
			"make room there, or enlarge it", provision.ErrDiskLow, free>>20, dir, least>>20)
	}
	return nil
}

// poolCapacity checks the reserves of the pool. One that has failed has no sizes, and
// nothing is said of its reserves.
func (m *Monitor) poolCapacity(s devmapper.Status) error {
	freeData := 1 - float64(s.UsedData)/float64(s.TotalData)
	freeMetadata := 1 - float64(s.UsedMetadata)/float64(s.TotalMetadata)
	switch {
	case s.Mode == devmapper.ModeOutOfDataSpace || freeData < m.cfg.MinFreeData:
		return fmt.Errorf("%w: %.1f %% of its data is free, %.1f %% is the reserve: "+
			"`consumer pool grow --data-size` adds space", provision.ErrPoolLow, 100*freeData, 100*m.cfg.MinFreeData)
	case freeMetadata < m.cfg.MinFreeMetadata:
		return fmt.Errorf("%w: %.1f %% of its metadata is free, %.1f %% is the reserve: "+
			"`consumer pool grow --metadata-size` adds space",
			provision.ErrPoolLow, 100*freeMetadata, 100*m.cfg.MinFreeMetadata)
	}
	return nil
}
