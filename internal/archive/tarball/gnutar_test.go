package tarball

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Whatever is accepted, GNU tar lists in the same way.
func TestGNUTarAgrees(t *testing.T) {
	requireGNUTar(t)
	accepted := 0
	for i, b := range allKinds(t, 1000) {
		want, err := render(t.Context(), b, gnuLine)
		if !errors.Is(err, io.EOF) {
			continue
		}
		accepted++
		same(t, fmt.Sprintf("GNU tar (archive %d)", i), want, gnuList(t, b))
	}
	if accepted < 300 {
		t.Errorf("only %d archives accepted", accepted)
	}
}

func requireGNUTar(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "--version").Output()
	if err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		t.Skipf("GNU tar is needed: %v", err)
	}
}

var gnuColumns = regexp.MustCompile(`^(\S{10}) +(\d+/\d+) +(\S+) (\S+ \S+) +(".*)$`)

// gnuList is what GNU tar lists, with single blanks between the columns.
func gnuList(t *testing.T, b []byte) (lines []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "tar", "--numeric-owner", "--full-time", "--quoting-style=c", "-Ptvf", "-")
	cmd.Env = append(os.Environ(), "TZ=UTC0", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(b)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Logf("%v: %s", err, &complaints) // about an empty time, for one
	}
	for line := range strings.Lines(string(out)) {
		c := gnuColumns.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if c == nil {
			t.Fatalf("a line that is not understood: %q", line)
		}
		if c[1][0] == 'd' {
			c[3] = "0" // GNU tar lists the size in the header, and reads no data
		}
		lines = append(lines, strings.Join(c[1:], " "))
	}
	return lines
}

// gnuLine is how GNU tar lists an entry.
func gnuLine(h *Header) string {
	size := fmt.Sprint(h.Size)
	if h.Type == Char || h.Type == Block {
		size = fmt.Sprintf("%d,%d", h.Device[0], h.Device[1])
	}
	name := gnuQuote(h.Name)
	switch h.Type {
	case Symlink:
		name += " -> " + gnuQuote(h.Linkname)
	case Hardlink:
		target := h.Linkname
		if len(target) == 0 {
			target = []byte(".") // GNU tar says so, and takes it for the root
		}
		name += " link to " + gnuQuote(target)
	}
	when := time.Unix(h.ModTime.Sec, int64(h.ModTime.Nsec)).UTC().Format("2006-01-02 15:04:05.999999999")
	return fmt.Sprintf("%s %d/%d %s %s %s", gnuMode(h), h.UID, h.GID, size, when, name)
}

// gnuMode is the type and the mode as ls shows them.
func gnuMode(h *Header) string {
	s := []byte("-rwxrwxrwx")
	s[0] = "-hlcbdp"[h.Type-Regular]
	for i := range 9 {
		if h.Mode>>(8-i)&1 == 0 {
			s[1+i] = '-'
		}
	}
	for _, x := range []struct {
		bit     int64
		at      int
		letters string // with and without the right to execute
	}{{0o4000, 3, "sS"}, {0o2000, 6, "sS"}, {0o1000, 9, "tT"}} {
		switch {
		case h.Mode&x.bit == 0:
		case s[x.at] == 'x':
			s[x.at] = x.letters[0]
		default:
			s[x.at] = x.letters[1]
		}
	}
	return string(s)
}

// gnuQuote is a name in quotes, in the C locale.
func gnuQuote(name []byte) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range name {
		switch i := strings.IndexByte("\a\b\t\n\v\f\r\\\"", c); {
		case i >= 0:
			b.WriteString(`\` + "abtnvfr\\\""[i:i+1])
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
