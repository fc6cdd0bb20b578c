package devmapper

import (
	"fmt"
	"strconv"
	"strings"
)

// Mode is the kernel's mode of a pool.
type Mode string

// The modes of a pool, best first.
const (
	ModeReadWrite      Mode = "read-write"
	ModeOutOfDataSpace Mode = "out-of-data-space" // reads and writes of mapped blocks work, and messages
	ModeReadOnly       Mode = "read-only"         // no message works, not even delete; also if metadata is full
	ModeFailed         Mode = "failed"            // all I/O fails
)

// Status is the state of a pool as the kernel reports it. Sizes are bytes.
type Status struct {
	Mode          Mode   `json:"mode"`
	NeedsCheck    bool   `json:"needs_check"` // a write of metadata failed; only an offline thin_check clears it
	UsedData      int64  `json:"used_data"`
	TotalData     int64  `json:"total_data"`
	UsedMetadata  int64  `json:"used_metadata"`
	TotalMetadata int64  `json:"total_metadata"`
	HeldRoot      bool   `json:"held_root"` // a metadata snapshot exists: somebody lists the devices, or died doing so
	TransactionID uint64 `json:"transaction_id"`

	heldRoot uint64 // block of the metadata snapshot
}

// modes translates the kernel's words
// (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
var modes = map[string]Mode{"rw": ModeReadWrite, "ro": ModeReadOnly, "out_of_data_space": ModeOutOfDataSpace}

// parseStatus reads `txid usedMeta/totalMeta usedData/totalData heldRoot|- mode discard
// no_space needs_check|- metaLowWater`, or `Fail`. It ignores fields that newer kernels
// may add at the end.
func parseStatus(params string, blockSize int64) (Status, error) {
	f := strings.Fields(params)
	if len(f) > 0 && (f[0] == "Fail" || f[0] == "Error") {
		return Status{Mode: ModeFailed, NeedsCheck: true}, nil
	}
	if len(f) < 8 {
		return Status{}, fmt.Errorf("%w pool status %q", errMalformed, params)
	}
	p := fieldParser{}
	s := Status{TransactionID: p.number(f[0]), NeedsCheck: f[7] == "needs_check"}
	s.UsedMetadata, s.TotalMetadata = p.ratio(f[1], metadataBlock)
	s.UsedData, s.TotalData = p.ratio(f[2], blockSize)
	if f[3] != "-" {
		s.HeldRoot, s.heldRoot = true, p.number(f[3])
	}
	mode, known := modes[f[4]]
	if p.bad || !known || (f[7] != "-" && f[7] != "needs_check") {
		return Status{}, fmt.Errorf("%w pool status %q", errMalformed, params)
	}
	s.Mode = mode
	return s, nil
}

// fieldParser remembers whether any field was malformed.
type fieldParser struct{ bad bool }

func (p *fieldParser) number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	p.bad = p.bad || err != nil
	return n
}

// ratio reads used/total, given in blocks, and returns bytes.
func (p *fieldParser) ratio(s string, block int64) (used, total int64) {
	a, b, ok := strings.Cut(s, "/")
	x, y := p.number(a), p.number(b)
	most := uint64(1<<62) / uint64(block)
	if !ok || x > most || y > most {
		p.bad = true
		return 0, 0
	}
	return int64(x) * block, int64(y) * block
}

// checkWritable returns ErrReadOnly with the reason if the pool takes no changes.
func (s Status) checkWritable() error {
	switch {
	case s.NeedsCheck:
		return fmt.Errorf("%w: its metadata needs a check", ErrReadOnly)
	case s.Mode != ModeReadWrite && s.Mode != ModeOutOfDataSpace:
		return fmt.Errorf("%w: it is %s", ErrReadOnly, s.Mode)
	}
	return nil
}
