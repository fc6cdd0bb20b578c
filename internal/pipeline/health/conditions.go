package health

// Name is the name of a condition, as metrics and /readyz have it.
type Name string

// The conditions. In a list the first of them comes first: it explains those after it.
const (
	Starting      Name = "starting"       // database and pool are opened
	Recovering    Name = "recovering"     // journal, pool and files are compared
	Stopping      Name = "stopping"       // running stages may finish
	Stuck         Name = "stuck"          // a loop of the daemon is not heard of
	Database      Name = "database"       // it cannot be written
	PoolForeign   Name = "pool_foreign"   // the pool's parts do not belong together
	DiskLow       Name = "disk_low"       // a file system has less than its reserve
	Settle        Name = "settle"         // messages cannot be held or settled
	PoolGone      Name = "pool_gone"      // the kernel does not have it
	PoolReadOnly  Name = "pool_read_only" // it takes no changes
	PoolLow       Name = "pool_low"       // it has less than its reserve
	Bucket        Name = "bucket"         // S3 does not answer for it
	Alone         Name = "alone"          // one image is tried without others
	Receive       Name = "receive"        // polls fail
	Outage        Name = "outage"         // a stage fails for every image
	ForeignEvents Name = "foreign_events" // all messages are about something else
)

var names = []Name{
	Starting, Recovering, Stopping, Stuck, Database, PoolForeign, DiskLow, Settle, PoolGone, PoolReadOnly, PoolLow,
	Bucket, Alone, Receive, Outage, ForeignEvents,
}

// Condition is something that may keep the daemon from taking work.
type Condition struct {
	Name Name
	Err  error // why it is active, and what to do; nil if it is not
}

// Reasons say why no work is taken. A condition without an error is not active.
type Reasons map[Name]error

// Conditions returns every condition, active or not, in the order of their names above.
func (r Reasons) Conditions() []Condition {
	all := make([]Condition, len(names))
	for i, name := range names {
		all[i] = Condition{Name: name, Err: r[name]}
	}
	return all
}

// Err returns the first reason; nil if there is none, and work is taken.
func (r Reasons) Err() error {
	for _, c := range r.Conditions() {
		if c.Err != nil {
			return c.Err
		}
	}
	return nil
}
