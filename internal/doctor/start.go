package doctor

import (
	"context"

	"imagemanager.internal/internal/devmapper"
)

// CheckQuickly makes the checks that neither run programs nor read the database.
func (m *Machine) CheckQuickly() []Finding {
	found := m.system()
	for _, p := range devmapper.Programs() {
		found = append(found, program(p))
	}
	return append(found, m.stateDir(), m.disk())
}

// CheckConnections looks for a wrong bucket and a wrong prefix, by three calls. What must
// not be looked at is left out: the daemon works without.
func (c *Cloud) CheckConnections(ctx context.Context) []Finding {
	bucket := c.bucket(ctx)
	queue, err := c.attributes(ctx, c.QueueURL)
	if bucket.Result == Fail || err != nil {
		return []Finding{bucket} // the queue's error is that of the first poll
	}
	configured, err := c.notifications(ctx)
	if err != nil {
		return []Finding{bucket}
	}
	notification, _ := c.judgeNotifications(configured, queue.arn())
	return []Finding{bucket, notification}
}
