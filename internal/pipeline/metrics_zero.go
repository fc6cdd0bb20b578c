package pipeline

import (
	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/store"
)

// zero makes every series with known labels beforehand. To Prometheus, the first event of
// a counter without a series is not an increase, and an alert on it stays silent.
func (m *Metrics) zero() {
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		for _, state := range []workerState{idle, busy, blocked} {
			m.workers.WithLabelValues(string(st), string(state))
		}
		m.duration.WithLabelValues(string(st))
		for class, verdicts := range possible() {
			for _, v := range verdicts {
				m.failures.WithLabelValues(string(st), string(v), class)
			}
		}
	}
	for _, r := range archive.Rules() {
		if r.Violation {
			m.attacks.WithLabelValues(string(r.Reason))
		}
	}
	m.waiting(0, 0)
}

// possible returns the possible verdicts on a failure of each class.
func possible() map[string][]verdict {
	list := map[string][]verdict{"database": {halt, retry, dead}, classPanic: comesTo(retry)}
	for _, c := range classes {
		list[c.class] = comesTo(c.verdict)
	}
	for _, class := range awserr.Classes() {
		list[string(class)] = comesTo(outage)
	}
	for _, r := range archive.Rules() {
		list[string(r.Reason)] = []verdict{reject}
		if r.Violation {
			list[string(r.Reason)] = []verdict{violation}
		}
	}
	return list
}

// comesTo returns what a verdict of the table may become.
func comesTo(v verdict) []verdict {
	switch v {
	case reject, violation, dead:
		return []verdict{v}
	case retry:
		return []verdict{retry, dead}
	}
	return []verdict{v, retry, dead}
}
