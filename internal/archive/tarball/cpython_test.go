package tarball

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/test/program"
)

// listing prints what tarfile finds in each archive that is named. It has no slash on
// directories, and reports the size in their header but reads no data.
const listing = `
import json, sys, tarfile
raw = lambda name: name.encode("utf-8", "surrogateescape").hex()
for path in sys.argv[1:]:
    lines = []
    try:
        for m in tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape"):
            kind = "0" if m.type == b"\0" else m.type.decode()
            size = 0 if kind == "5" else m.size
            lines.append("%s %s %s %d %o %d %d" % (
                kind, raw(m.name.rstrip("/")), raw(m.linkname), size, m.mode & 0o7777, m.uid, m.gid))
    except tarfile.TarError as e:
        lines.append(str(e))
    print(json.dumps(lines))
`

// Whatever is accepted, CPython's tarfile lists in the same way.
func TestCPythonAgrees(t *testing.T) {
	requireGNUTar(t)
	program.Require(t, "python3", "python3")
	dir := t.TempDir()
	var paths []string
	var want [][]string
	for i, b := range allKinds(t, 1000) {
		lines, err := render(t.Context(), b, pythonLine)
		if !errors.Is(err, io.EOF) || len(lines) == 0 { // tarfile opens no archive without entries
			continue
		}
		paths, want = append(paths, filepath.Join(dir, fmt.Sprint(i))), append(want, lines)
		if err := os.WriteFile(paths[len(paths)-1], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-c", listing}, paths...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	found := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(found) != len(want) {
		t.Fatalf("%d archives listed, of %d: %v", len(found), len(want), err)
	}
	for i, text := range found {
		same(t, fmt.Sprintf("CPython (archive %s)", filepath.Base(paths[i])), want[i], pythonList(t, text))
	}
}

func pythonList(t *testing.T, text string) (lines []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &lines); err != nil {
		t.Fatal(err)
	}
	return lines
}

func pythonLine(h *Header) string {
	return fmt.Sprintf("%c %x %x %d %o %d %d", h.Type, bytes.TrimRight(h.Name, "/"), h.Linkname, h.Size, h.Mode, h.UID,
		h.GID)
}
