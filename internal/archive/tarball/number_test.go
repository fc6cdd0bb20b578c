package tarball

import "testing"

// Numbers in headers: octal in its variants, base-256, and everything at the borders of
// what fits.
func TestNumber(t *testing.T) {
	for _, c := range []struct {
		field string
		want  int64
		ok    bool
	}{
		{"0000644\x00", 0o644, true},
		{"000644 \x00", 0o644, true},
		{"   644 \x00", 0o644, true},
		{"\x00\x00\x00\x00\x00\x00\x00\x00", 0, true},
		{"        ", 0, true},
		{"00006448", 0, false},
		{"644\x00644\x00", 0, false},
		{"\x00000644\x00", 0, false},
		{"-0000644", 0, false},
		{"0x000644", 0, false},
		{"\x80\x00\x00\x00\x00\x00\x01\x00", 256, true},
		{"\xff\xff\xff\xff\xff\xff\xff\xff", -1, true},
		{"\xff\xff\xff\xff\xff\xff\xff\x00", -256, true},
		{"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", 1<<63 - 1, true},
		{"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", 0, false},
		{"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05", 0, false},
		{"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0, false},
		{"\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", -1 << 63, true},
	} {
		got, err := number([]byte(c.field))
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%q is %d, %v; want %d, %t", c.field, got, err, c.want, c.ok)
		}
	}
}

// Times in PAX records.
func TestTimestamp(t *testing.T) {
	for _, c := range []struct {
		text string
		want Time
		ok   bool
	}{
		{"0", Time{}, true},
		{"1700000000.5", Time{1700000000, 500000000}, true},
		{"1.123456789987", Time{1, 123456789}, true},
		{"-1", Time{-1, 0}, true},
		{"-1.25", Time{-2, 750000000}, true},
		{"-0.5", Time{-1, 500000000}, true},
		{"1.", Time{}, false},
		{".5", Time{}, false},
		{"", Time{}, false},
		{"-", Time{}, false},
		{"1e9", Time{}, false},
		{"1.5x", Time{}, false},
		{"+1", Time{}, false},
		{"99999999999999999999", Time{}, false},
	} {
		got, err := timestamp([]byte(c.text))
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%q is %v, %v; want %v, %t", c.text, got, err, c.want, c.ok)
		}
	}
}
