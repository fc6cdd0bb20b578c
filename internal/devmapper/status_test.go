package devmapper

import (
	"errors"
	"testing"
)

func TestParseStatus(t *testing.T) {
	const block = 64 << 10
	tests := []struct {
		name, params string
		want         Status
		bad          bool
	}{
		{
			"new", "0 60/512 0/8192 - rw discard_passdown error_if_no_space - 1024",
			Status{Mode: ModeReadWrite, UsedMetadata: 60 * 4096, TotalMetadata: 512 * 4096, TotalData: 8192 * block},
			false,
		},
		{
			"held, txid", "7 60/512 3/8192 77 rw no_discard_passdown error_if_no_space - 1024",
			Status{
				Mode: ModeReadWrite, TransactionID: 7, UsedMetadata: 60 * 4096, TotalMetadata: 512 * 4096,
				UsedData: 3 * block, TotalData: 8192 * block, HeldRoot: true, heldRoot: 77,
			},
			false,
		},
		{
			"full", "0 1/2 9/9 - out_of_data_space discard_passdown queue_if_no_space - 1024",
			Status{
				Mode: ModeOutOfDataSpace, UsedMetadata: 4096, TotalMetadata: 8192, UsedData: 9 * block,
				TotalData: 9 * block,
			},
			false,
		},
		{
			"broken", "0 1/2 0/9 - ro discard_passdown error_if_no_space needs_check 1024",
			Status{Mode: ModeReadOnly, NeedsCheck: true, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{
			"older kernel, no low-water mark", "0 1/2 0/9 - ro discard_passdown error_if_no_space -",
			Status{Mode: ModeReadOnly, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{
			"newer kernel, more fields", "0 1/2 0/9 - rw discard_passdown error_if_no_space - 1024 what next",
			Status{Mode: ModeReadWrite, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{"failed", "Fail", Status{Mode: ModeFailed, NeedsCheck: true}, false},
		{"error", "Error", Status{Mode: ModeFailed, NeedsCheck: true}, false},
		{"empty", "", Status{}, true},
		{"short", "0 1/2 0/9 - rw", Status{}, true},
		{"no ratio", "0 1 0/9 - rw a b - 1", Status{}, true},
		{"negative", "0 1/2 -1/9 - rw a b - 1", Status{}, true},
		{"overflow", "0 1/2 0/9223372036854775807 - rw a b - 1", Status{}, true},
		{"unknown mode", "0 1/2 0/9 - maybe a b - 1", Status{}, true},
		{"unknown check", "0 1/2 0/9 - rw a b perhaps 1", Status{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStatus(tt.params, block)
			if tt.bad != errors.Is(err, errMalformed) || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("7 60/512 3/8192 77 rw no_discard_passdown error_if_no_space - 1024", int64(65536))
	f.Add("Fail", int64(1<<30))
	f.Fuzz(func(t *testing.T, params string, block int64) {
		if block < minBlockSize || block > maxBlockSize {
			return
		}
		s, err := parseStatus(params, block)
		if err != nil {
			if s != (Status{}) {
				t.Errorf("%q: %+v with %v", params, s, err)
			}
			return
		}
		if s.UsedData < 0 || s.TotalData < 0 || s.UsedMetadata < 0 || s.TotalMetadata < 0 || s.Mode == "" ||
			s.UsedData%block != 0 {
			t.Errorf("%q: %+v", params, s)
		}
	})
}

func TestCheckWritable(t *testing.T) {
	for s, ok := range map[Status]bool{
		{Mode: ModeReadWrite}: true, {Mode: ModeOutOfDataSpace}: true,
		{Mode: ModeReadOnly}: false, {Mode: ModeFailed}: false, {Mode: ModeReadWrite, NeedsCheck: true}: false,
		{}: false,
	} {
		if err := s.checkWritable(); (err == nil) != ok || !ok && !errors.Is(err, ErrReadOnly) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
