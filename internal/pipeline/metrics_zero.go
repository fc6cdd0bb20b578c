package pipeline

import (
	"slices"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Some errors cannot come from every stage.
var (
	onlyDownloading = []error{
		awserr.ErrNoCredentials, download.ErrKey, download.ErrGone, download.ErrTooBig, download.ErrChanged,
		download.ErrDenied, download.ErrCredentials, download.ErrRefused, download.ErrArchived, download.ErrKMS,
		download.ErrNotS3, download.ErrNoBucket, download.ErrShort,
	}
	neverDownloading = []error{
		provision.ErrReadBack, provision.ErrPoolLow, provision.ErrTooSmall, archive.ErrChanged,
		devmapper.ErrNoSpace, devmapper.ErrReadOnly, devmapper.ErrNotFound, devmapper.ErrBusy, devmapper.ErrExists,
	}
)

// comesFrom reports whether a stage can fail with an error of the table of classes.
func comesFrom(st store.Stage, target error) bool {
	if st == store.StageDownload {
		return !slices.Contains(neverDownloading, target)
	}
	return !slices.Contains(onlyDownloading, target)
}

// possible returns the possible verdicts on a failure of each class at a stage. Only an
// unpack judges an archive, and only a download calls AWS.
func possible(st store.Stage) map[string][]verdict {
	list := map[string][]verdict{
		"database": {halt, retry}, classPanic: {retry}, string(awserr.Other): {retry},
	}
	if st == store.StageDownload {
		for _, class := range awserr.Classes() {
			list[string(class)] = comesTo(outage)
		}
	}
	for _, c := range classes {
		if comesFrom(st, c.target) {
			list[c.class] = union(list[c.class], comesTo(c.verdict))
		}
	}
	if st == store.StageUnpack {
		for _, r := range archive.Rules() {
			list[string(r.Reason)] = []verdict{reject}
			if r.Violation {
				list[string(r.Reason)] = []verdict{violation}
			}
		}
	}
	return list
}

// comesTo returns what a verdict of the table may become.
func comesTo(v verdict) []verdict {
	switch v {
	case reject, violation, dead, retry:
		return []verdict{v}
	}
	return []verdict{v, retry}
}

func union(a, b []verdict) []verdict {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
