package tarball

import (
	"bytes"
	"math"
)

// number reads a field: octal digits, or base-256 of GNU tar if the first bit is set. The
// second bit is then the sign.
func number(b []byte) (int64, *Error) {
	if b[0]&0x80 == 0 {
		return octal(b)
	}
	negative := b[0]&0x40 != 0
	var n uint64
	for i, c := range b {
		if negative {
			c = ^c
		}
		if i == 0 {
			c &= 0x3f
		}
		if n>>56 != 0 {
			return 0, defect(ParseError, "number %q does not fit 64 bits", b)
		}
		n = n<<8 | uint64(c)
	}
	if n > math.MaxInt64 {
		return 0, defect(ParseError, "number %q does not fit 64 bits", b)
	}
	if negative {
		return ^int64(n), nil
	}
	return int64(n), nil
}

// octal reads digits after blanks and before blanks or NULs. An empty field is 0.
func octal(b []byte) (int64, *Error) {
	digits := bytes.TrimLeft(bytes.TrimRight(b, " \x00"), " ")
	if len(digits) > 20 {
		return 0, defect(ParseError, "number %q does not fit 63 bits", b)
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '7' {
			return 0, defect(ParseError, "not an octal number: %q", b)
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}

// signed reports whether a field begins with a minus. It is no octal number, but CPython
// reads one, and GNU tar a number of its first versions.
func signed(b []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(b, " "), []byte("-")) }

// decimal reads a number of digits only.
func decimal(b []byte) (int64, *Error) {
	if len(b) == 0 || len(b) > 19 {
		return 0, defect(ParseError, "not a decimal number: %.30q", b)
	}
	var n int64
	for _, c := range b {
		d := int64(c - '0')
		if c < '0' || c > '9' || n > (math.MaxInt64-d)/10 {
			return 0, defect(ParseError, "not a decimal number: %.30q", b)
		}
		n = n*10 + d
	}
	return n, nil
}

// owner reads a user or group ID of a PAX record.
func owner(b []byte) (int64, *Error) {
	n, err := decimal(b)
	digits := bytes.TrimPrefix(b, []byte("-"))
	if err != nil && len(digits) > 0 && len(bytes.Trim(digits, "0123456789")) == 0 {
		return 0, badOwner("%.30s", b)
	}
	return n, err
}

// badOwner returns the defect for an owner that no Linux system has. To the kernel -1
// means: leave the owner as it is.
func badOwner(format string, args ...any) *Error {
	return defect(UIDRange, "owner "+format+"; a wrapped number would be another user, perhaps root", args...)
}

// timestamp reads a PAX time: an optional minus, seconds, and an optional fraction. Nine
// digits of the fraction count.
func timestamp(b []byte) (Time, *Error) {
	whole, fraction, dotted := bytes.Cut(b, []byte("."))
	digits, negative := bytes.CutPrefix(whole, []byte("-"))
	sec, err := decimal(digits)
	if err != nil || dotted && len(fraction) == 0 {
		return Time{}, defect(ParseError, "not a time: %.30q", b)
	}
	nsec, scale := int64(0), int64(1e8)
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return Time{}, defect(ParseError, "not a time: %.30q", b)
		}
		nsec += int64(c-'0') * scale
		scale /= 10
	}
	if negative { // -1.25 is 0.75 after -2
		sec, nsec = -sec, -nsec
		if nsec < 0 {
			sec, nsec = sec-1, nsec+1e9
		}
	}
	return Time{Sec: sec, Nsec: int32(nsec)}, nil
}
