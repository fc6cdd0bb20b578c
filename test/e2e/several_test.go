package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// One command removes several images and snapshots, by any of their names. With a wrong
// name it removes nothing; what is in use keeps none of the others.
func TestRemoveSeveral(t *testing.T) {
	h := newHost(t)
	ids := map[string]int64{}
	for _, name := range []string{"a", "b", "c", "d"} {
		h.put("images/"+name+".tar", tarballs.RootFS("hello", 3))
	}
	h.Start()
	for _, name := range []string{"a", "b", "c", "d"} {
		ids[name] = h.WaitActive("images/" + name + ".tar").ID
	}
	expect := func(states map[string]store.State) {
		t.Helper()
		for name, want := range states {
			if got := h.image(ids[name]).State; got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
	out, code := h.Try("rm", "--force", "images/a.tar", "images/none.tar")
	if code != 5 || !strings.Contains(out, "images/none.tar") {
		t.Errorf("exit code %d: %s", code, out)
	}
	expect(map[string]store.State{"a": store.StateActive})

	used := h.snapshots(ids["b"])[0]
	m, err := devmapper.MountDetached(used.Path, ext4.MountInspect)
	h.Check(err)
	free := h.snapshots(ids["d"])[0]
	out, code = h.Try("rm", "a.tar", fmt.Sprint(ids["b"]), "--force", "s3://"+h.image(ids["c"]).Bucket+"/images/c.tar",
		fmt.Sprintf("snapshot:%d", free.Device))
	if code != 1 || !strings.Contains(out, "in use") || !strings.Contains(out, filepath.Base(used.Path)) ||
		strings.Count(out, "removed, devices") != 3 {
		t.Errorf("exit code %d: %s", code, out)
	}
	expect(map[string]store.State{
		"a": store.StateRemoved, "b": store.StateActive, "c": store.StateRemoved, "d": store.StateActive,
	})
	if left := h.snapshots(ids["d"]); len(left) != 0 {
		t.Errorf("%+v is left", left)
	}
	h.Check(m.Close())
	h.expectOutput(`"already_removed": true`, "rm", "--force", "--json", "b.tar", "a.tar")
	h.Stop()
	h.Look()
}
