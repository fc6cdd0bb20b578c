package dmctl

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A udevd with a backlog, as at boot, works on events of devices long gone. It looks up
// the present owner of their number, gives that device's name to the dead one, and then
// removes the name together with the dead one. The kernel gives the lowest free number,
// so the next device gets the number of the last one removed, and its path vanishes for a
// while. Therefore Create asks for numbers nobody had lately: one after the other, from a
// random start in each process, above those that the kernel gives to others.
const (
	firstMinor = 1 << 16
	minors     = 1<<20 - firstMinor // MINORBITS in linux/kdev_t.h
	maxTaken   = 1000               // minors in a row that may be taken
)

var lastMinor atomic.Uint32

func init() { lastMinor.Store(rand.Uint32N(minors)) }

func nextMinor() uint32 { return firstMinor + lastMinor.Add(1)%minors }

// Create makes a device without a table. EBUSY is returned when another device has the
// name or the UUID.
func (c *Control) Create(name, uuid string) (Device, error) {
	for try := 0; ; try++ {
		d, err := c.change(unix.DM_DEV_CREATE, "create", request{
			name: name, uuid: uuid, number: unix.Mkdev(0, nextMinor()), flags: unix.DM_PERSISTENT_DEV_FLAG,
		})
		if !errors.Is(err, unix.EBUSY) || try == maxTaken || c.isTaken(name, uuid) {
			return d, err
		}
	}
}

// isTaken reports whether there is a device of this name or UUID.
func (c *Control) isTaken(name, uuid string) bool {
	_, byName := c.FindName(name)
	_, byUUID := c.Find(uuid)
	return byName == nil || byUUID == nil
}
