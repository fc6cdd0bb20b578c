package doctor

import "context"

// Machine looks at this machine, as far as the rights of the process allow.
type Machine struct {
	StateDir string
	Database string // path
	Listen   string // address, may be empty

	MinFreeDisk                  int64   // bytes
	MinFreeData, MinFreeMetadata float64 // percent of the pool

	// Daemon returns the id of the daemon's process that answers at Listen.
	Daemon func(context.Context) (pid int, err error)
}

// notRoot is the remedy where root sees more.
const notRoot = "run this as root"

// Check makes all checks.
func (m *Machine) Check(ctx context.Context) []Finding {
	found := append(m.system(), programs(ctx)...)
	found = append(found, m.stateDir(), m.disk())
	return append(append(found, m.journal(ctx)...), m.address(ctx))
}

// system looks at the kernel, and at what this process may do.
func (*Machine) system() []Finding {
	return []Finding{kernel(), thinTarget(), loop(), detachedMount(), openat2(), capabilities()}
}
