package devmapper

import "time"

const (
	// busyPatience is how long a device may stay open after the last of ours closed it:
	// udev and other watchers look at devices.
	busyPatience = 3 * time.Second
	// reloadPatience is how long a pool may be suspended while another process of ours
	// lets it grow: beside a busy udevd on one CPU, for more than a second.
	reloadPatience = 10 * time.Second
	// tornPatience is how long a superblock may look damaged.
	tornPatience = 200 * time.Millisecond
	// lockPatience is how long another process of ours may hold the pool's lock.
	lockPatience = 30 * time.Second
)

// patiently calls try until it succeeds, fails for another reason than those that pass,
// or the time is up; then its last error stands. The pauses grow from 1 to 100 ms.
func patiently(patience time.Duration, passes func(error) bool, try func() error) error {
	const longest = 100 * time.Millisecond
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := try()
		if err == nil || !passes(err) || time.Now().After(deadline) {
			return err
		}
		<-time.After(pause)
	}
}
