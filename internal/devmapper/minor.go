package devmapper

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// udevd that is behind, as at boot, works on events of devices that are gone. It looks up
// what has their number now: it gives that device's name to the dead one, and then
// removes it together with the dead one. The kernel gives the lowest free number, so the
// next device has the number of the last one that was removed, and its path vanishes for
// a while. So we ask for numbers that nobody had lately: one after the other, from a
// start that is another one in each process, above those that the kernel gives to others.
const (
	firstMinor = 1 << 16
	minors     = 1<<20 - firstMinor // MINORBITS in linux/kdev_t.h
	mostTaken  = 1000               // minors in a row that may be taken
)

var lastMinor atomic.Uint32

func init() { lastMinor.Store(rand.Uint32N(minors)) }

func nextMinor() uint32 { return firstMinor + lastMinor.Add(1)%minors }

// create makes a device without a table. EBUSY says that the name or the UUID is taken.
func (c control) create(name, uuid string) (device, error) {
	for try := 0; ; try++ {
		d, err := c.change(unix.DM_DEV_CREATE, "create", request{
			name: name, uuid: uuid, dev: unix.Mkdev(0, nextMinor()), flags: unix.DM_PERSISTENT_DEV_FLAG,
		})
		if !errors.Is(err, unix.EBUSY) || try == mostTaken || c.taken(name, uuid) {
			return d, err
		}
	}
}

// taken reports whether there is a device of this name or UUID.
func (c control) taken(name, uuid string) bool {
	_, byName := c.findName(name)
	_, byUUID := c.find(uuid)
	return byName == nil || byUUID == nil
}
