package queue

import (
	"container/heap"
	"sync"
	"time"
)

// spare is how far the 12 h are kept clear of: what ends beyond them is refused with the
// code that means a lost handle, too, and our clock may be slower than the queue's.
const spare = time.Minute

// lease is how long a message is ours. A message that is delivered again while it is held
// is the same lease with a newer receipt handle, for all its holders: the queue obeys the
// newest handle only. All fields but id and lost are guarded by leases.mu; cause may be
// read once lost is closed.
type lease struct {
	id     string
	handle string // the newest receipt handle
	end    time.Time
	limit  time.Time // nothing is extended beyond

	next  time.Time // when the heartbeat has to look at it
	index int       // in the heap, -1 outside
	busy  bool      // an extension is in flight
	last  bool      // extended for the last time

	holders  int  // messages that have not been ended
	deleting int  // Deletes in flight
	deleted  bool // the queue has confirmed it

	lost  chan struct{}
	cause error
}

// alive tells whether the heartbeat has to care.
func (l *lease) alive() bool { return l.holders > 0 && !l.deleted && l.cause == nil }

// leases are all messages held, and which of them the heartbeat has to look at first.
type leases struct {
	visibility time.Duration
	patience   time.Duration // for one call
	wake       chan struct{} // buffered by one: there may be something to look at

	mu    sync.Mutex
	byID  map[string]*lease
	first leaseHeap
}

func newLeases(visibility, patience time.Duration) *leases {
	return &leases{visibility: visibility, patience: patience, wake: make(chan struct{}, 1), byID: map[string]*lease{}}
}

// adopt notes a message that came with a receive asked for at the time given. Nobody
// knows when between then and now the queue started the lease; the earlier is assumed.
// When even that is nearly over, the message gets the time of one call, to find out.
func (ls *leases) adopt(id, handle string, asked, now time.Time) *lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byID[id]
	if l == nil || l.deleted {
		l = &lease{id: id, index: -1, lost: make(chan struct{})}
		ls.byID[id] = l
	}
	l.holders++
	l.handle = handle
	l.end = later(asked.Add(ls.visibility), now.Add(ls.patience))
	l.limit = asked.Add(maxVisibility - spare)
	l.next = asked.Add(ls.period(ls.visibility))
	l.busy, l.last = false, false
	ls.arrange(l)
	return l
}

// period is how long after the beginning of a lease it is extended: half of it; a little
// earlier if it is so short that a slow call would be too late.
func (ls *leases) period(lease time.Duration) time.Duration {
	return max(min(lease/2, lease-5*time.Second), lease/4)
}

// arrange puts a lease where it belongs in the heap. It is called after every change,
// with mu held.
func (ls *leases) arrange(l *lease) {
	switch {
	case l.alive() && l.index < 0:
		heap.Push(&ls.first, l)
	case l.alive():
		heap.Fix(&ls.first, l.index)
	case l.index >= 0:
		heap.Remove(&ls.first, l.index)
	}
	if l.holders == 0 && l.deleting == 0 && ls.byID[l.id] == l {
		delete(ls.byID, l.id)
	}
	ls.nudge()
}

// nudge makes the heartbeat look again.
func (ls *leases) nudge() {
	select {
	case ls.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// lose ends a lease for its holders; cause is an ErrLost. It is called with mu held.
func (ls *leases) lose(l *lease, cause error) {
	l.cause = cause
	close(l.lost)
	if ls.byID[l.id] == l {
		delete(ls.byID, l.id) // when it comes again, it is another lease
	}
	ls.arrange(l)
}

// newest returns the handle to be used for a message: that of its last receive, even if
// the lease is of an earlier one.
func (ls *leases) newest(l *lease) string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if newer := ls.byID[l.id]; newer != nil {
		return newer.handle
	}
	return l.handle
}

// let notes that the message's holder has ended it.
func (ls *leases) let(m *Message) {
	if m.ended {
		return
	}
	m.ended = true
	m.lease.holders--
	ls.arrange(m.lease)
}

// release lets go of a message. It returns the handle to be given back, "" if the queue
// is not to be told: because the message is deleted, or somebody else holds it, too.
func (ls *leases) release(m *Message) (handle string, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	again := m.ended
	ls.let(m)
	switch l := m.lease; {
	case l.cause != nil:
		return "", l.cause
	case again, l.deleted, l.holders > 0:
		return "", nil
	}
	return m.lease.handle, nil
}

// deleting lets go of a message. It returns the lease to be deleted, nil if there is
// nothing left to delete. The outcome must be given to deleted.
func (ls *leases) deleting(m *Message) (l *lease, handle string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l = m.lease
	if newer := ls.byID[l.id]; newer != nil {
		l = newer
	}
	if m.lease.deleted || l.deleted {
		ls.let(m)
		return nil, ""
	}
	l.deleting++ // first: a lease without holders would be forgotten, and with it what the delete comes to
	ls.let(m)
	return l, l.handle
}

// deleted notes the outcome of a delete. Other holders of a message that is still there
// go on being extended.
func (ls *leases) deleted(m *Message, l *lease, ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.deleting--
	if ok {
		l.deleted, m.lease.deleted = true, true
	}
	ls.arrange(l)
	ls.arrange(m.lease)
}

// rest is how long a message may be kept invisible from now on, at most.
func (ls *leases) rest(l *lease) time.Duration {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return time.Until(l.limit)
}

// held reports whether there is any lease that the heartbeat has to care for.
func (ls *leases) held() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return len(ls.first) > 0
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// leaseHeap implements heap.Interface: the lease to be looked at first is at the root.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }

func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push adds a lease at the end, as heap.Push wants it.
func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop removes the lease at the end, as heap.Pop wants it.
func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.index = -1
	return l
}
