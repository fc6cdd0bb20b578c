package extract

import (
	"fmt"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

// capabilities is a set: bit n stands for capability n of linux/capability.h.
type capabilities uint64

func capabilitySet(numbers ...int) (set capabilities) {
	for _, n := range numbers {
		set |= 1 << n
	}
	return set
}

// What threads keep, and what for. Among others MKNOD, SETUID, SYS_CHROOT, SYS_PTRACE and
// NET_ADMIN are absent. SYS_ADMIN is in effect during single calls only.
var (
	// writeCaps are for any tree. They set owners. Then they set modes, times and user.*
	// attributes, though the file belongs to another user and may be read-only.
	writeCaps = capabilitySet(unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_DAC_OVERRIDE)
	// specialBitsCaps keep setgid on files of other groups, which the kernel would strip,
	// and set file capabilities.
	specialBitsCaps = capabilitySet(unix.CAP_FSETID, unix.CAP_SETFCAP)
	// readCaps open any file, but not for writing.
	readCaps = capabilitySet(unix.CAP_DAC_READ_SEARCH)
	// trustedXattrCaps show trusted.* attributes. Without them a verification would
	// accept a tree with an added one.
	trustedXattrCaps = capabilitySet(unix.CAP_SYS_ADMIN)
)

// extractCaps returns the capabilities for writing. They depend on the policy and not on
// the tree: should a file capability slip through the policy, writing it fails.
func extractCaps(p archive.Policy) capabilities {
	if p.KeepsSetuid() {
		return writeCaps | specialBitsCaps
	}
	return writeCaps
}

// threadCaps are the capability sets of a thread.
type threadCaps struct{ permitted, effective, inheritable capabilities }

// getCaps returns the sets of the calling thread. Source: capget(2).
func getCaps() (threadCaps, error) {
	var data [2]unix.CapUserData // 32 bits each, in version 3
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return threadCaps{}, fmt.Errorf("get capabilities: %w", err)
	}
	join := func(low, high uint32) capabilities { return capabilities(high)<<32 | capabilities(low) }
	return threadCaps{
		permitted:   join(data[0].Permitted, data[1].Permitted),
		effective:   join(data[0].Effective, data[1].Effective),
		inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

// set gives the calling thread these sets. Source: capset(2).
func (c threadCaps) set() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	half := func(shift int) unix.CapUserData {
		return unix.CapUserData{
			Permitted: uint32(c.permitted >> shift), Effective: uint32(c.effective >> shift),
			Inheritable: uint32(c.inheritable >> shift),
		}
	}
	data := [2]unix.CapUserData{half(0), half(32)}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
