package queue

import (
	"container/heap"
	"sync"
	"time"
)

// limitMargin keeps extensions short of SQS's 12 h limit. Beyond the limit SQS answers
// with the same code as for a lost handle, and our clock may be slower than the queue's.
const limitMargin = time.Minute

// phase is where a live lease stands between two extensions.
type phase int

const (
	phaseWaiting   phase = iota // until it is due for its next extension
	phaseExtending              // an extension is in flight; due only when the lease ends
	phaseFinal                  // no extension would make it longer; due only when the lease ends
)

// lease is the time for which a message is ours. A message delivered again while it is
// held keeps its lease, under a newer receipt handle, for all its holders: the queue
// obeys only the newest handle. leases.mu guards all fields but id and lost; cause may be
// read once lost is closed.
type lease struct {
	id     string
	handle string // the newest receipt handle
	end    time.Time
	limit  time.Time // no extension goes beyond

	phase phase
	due   time.Time // when the heartbeat has to decide on it
	index int       // in the heap, -1 outside

	holders  int  // messages not ended yet
	deleting int  // Deletes in flight
	deleted  bool // the queue has confirmed it

	lost  chan struct{}
	cause error
}

// alive reports whether the heartbeat must extend the lease.
func (l *lease) alive() bool { return l.holders > 0 && !l.deleted && l.cause == nil }

// leases are all messages held, in the order in which the heartbeat has to decide on
// them. Methods with the suffix Locked are called with mu held.
type leases struct {
	visibility  time.Duration
	callTimeout time.Duration
	wake        chan struct{} // buffered by one: the schedule may have changed

	mu       sync.Mutex
	byID     map[string]*lease
	schedule leaseHeap
}

func newLeases(visibility, callTimeout time.Duration) *leases {
	return &leases{
		visibility: visibility, callTimeout: callTimeout,
		wake: make(chan struct{}, 1), byID: map[string]*lease{},
	}
}

// track records a message received by the request made at the time asked. The queue
// started the lease some time between then and now; the earlier is assumed. If even that
// lease is nearly over, the message gets the time of one call, to find out.
func (ls *leases) track(id, handle string, asked, now time.Time) *lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byID[id]
	if l == nil || l.deleted {
		l = &lease{id: id, index: -1, lost: make(chan struct{})}
		ls.byID[id] = l
	}
	l.holders++
	l.handle = handle
	l.end = later(asked.Add(ls.visibility), now.Add(ls.callTimeout))
	l.limit = asked.Add(maxVisibility - limitMargin)
	l.due = asked.Add(ls.period(ls.visibility))
	l.phase = phaseWaiting
	ls.rescheduleLocked(l)
	return l
}

// period is the time from the beginning of a lease to its extension: half of the lease,
// or less if the lease is so short that a slow call would come too late.
func (ls *leases) period(lease time.Duration) time.Duration {
	return max(min(lease/2, lease-5*time.Second), lease/4)
}

// rescheduleLocked moves a lease to its place in the heap. It is called after every
// change.
func (ls *leases) rescheduleLocked(l *lease) {
	switch {
	case l.alive() && l.index < 0:
		heap.Push(&ls.schedule, l)
	case l.alive():
		heap.Fix(&ls.schedule, l.index)
	case l.index >= 0:
		heap.Remove(&ls.schedule, l.index)
	}
	if l.holders == 0 && l.deleting == 0 && ls.byID[l.id] == l {
		delete(ls.byID, l.id)
	}
	ls.wakeUp()
}

// wakeUp makes the heartbeat look at the schedule again.
func (ls *leases) wakeUp() {
	select {
	case ls.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// recordLossLocked ends a lease for its holders. The cause wraps ErrLeaseLost.
func (ls *leases) recordLossLocked(l *lease, cause error) {
	l.cause = cause
	close(l.lost)
	if ls.byID[l.id] == l {
		delete(ls.byID, l.id) // if the message is received again, it gets another lease
	}
	ls.rescheduleLocked(l)
}

// newestHandle returns the handle of the message's last receive, even if the lease is of
// an earlier one.
func (ls *leases) newestHandle(l *lease) string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if newer := ls.byID[l.id]; newer != nil {
		return newer.handle
	}
	return l.handle
}

// endLocked records that the message's holder has ended it.
func (ls *leases) endLocked(m *Message) {
	if m.ended {
		return
	}
	m.ended = true
	m.lease.holders--
	ls.rescheduleLocked(m.lease)
}

// endForRelease ends a message and returns the handle to release. The handle is "" if the
// queue must not be told, because the message is deleted or somebody else holds it too.
func (ls *leases) endForRelease(m *Message) (handle string, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	again := m.ended
	ls.endLocked(m)
	switch l := m.lease; {
	case l.cause != nil:
		return "", l.cause
	case again, l.deleted, l.holders > 0:
		return "", nil
	}
	return m.lease.handle, nil
}

// beginDelete ends a message and returns the lease to delete, nil if nothing is left to
// delete. The caller must report the outcome to recordDelete.
func (ls *leases) beginDelete(m *Message) (l *lease, handle string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l = m.lease
	if newer := ls.byID[l.id]; newer != nil {
		l = newer
	}
	if m.lease.deleted || l.deleted {
		ls.endLocked(m)
		return nil, ""
	}
	l.deleting++ // first: a lease without holders would be forgotten, and the outcome with it
	ls.endLocked(m)
	return l, l.handle
}

// recordDelete records the outcome of a delete. If the message still exists, its other
// holders keep it and its lease goes on being extended.
func (ls *leases) recordDelete(m *Message, l *lease, ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.deleting--
	if ok {
		l.deleted, m.lease.deleted = true, true
	}
	ls.rescheduleLocked(l)
	ls.rescheduleLocked(m.lease)
}

// remaining is how long from now a message may be kept invisible at most.
func (ls *leases) remaining(l *lease) time.Duration {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return time.Until(l.limit)
}

// anyAlive reports whether the heartbeat has any lease to extend.
func (ls *leases) anyAlive() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return len(ls.schedule) > 0
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// leaseHeap implements heap.Interface: the lease due first is at the root.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push adds a lease at the end, as required by heap.Push.
func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop removes the lease at the end, as required by heap.Pop.
func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.index = -1
	return l
}
