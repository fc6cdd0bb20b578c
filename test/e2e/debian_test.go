package e2e

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/images"
)

// Real images: a Debian minbase, a bigger one with Python and a compiler, and the bigger
// one in the forms that docker and OCI tools write. All are taken under distro; what they
// hold is the same tree whatever the form; each proves itself again; and the plain one is
// what GNU tar makes of the same archive.
func TestDebianImages(t *testing.T) {
	list := filepath.SplitList(os.Getenv("CIM_DEBIAN_IMAGES"))
	if len(list) != 2 {
		t.Skip("CIM_DEBIAN_IMAGES does not name two root file systems, a small and a big one; " +
			"`make test-debian` builds them and runs this")
	}
	h := newSizedHost(t, "12GiB", "IMAGE_POLICIES=images/debian/:distro", "DEVICE_SIZE=2GiB", "LOG_LEVEL=info")
	h.Start()
	h.putFile("images/debian/minbase.tar", list[0])
	h.putFile("images/debian/plain.tar", list[1])
	forms := map[string]string{}
	for name, path := range savedForms(t, list[1]) {
		forms["images/debian/"+name+".tar"] = path
		h.putFile("images/debian/"+name+".tar", path)
		must(os.Remove(path))
	}
	h.WaitLonger(17*time.Minute, "the queue is empty", h.IsDrained)
	h.Stop()
	h.Look()
	h.logCost(h.WaitActive("images/debian/minbase.tar"))
	plain := h.WaitActive("images/debian/plain.tar")
	h.logCost(plain)
	for key := range forms {
		img := h.WaitActive(key)
		h.logCost(img)
		if got := h.treeDigest(img); got != plain.Tree.Digest {
			t.Errorf("%s: its tree has the digest %s, the plain one %s", key, got, plain.Tree.Digest)
		}
	}
	if out := h.Consumer("verify", "--all"); strings.Count(out, "as sealed") != 2+len(forms) {
		t.Errorf("verify: %s", out)
	}
	h.compareWithGNUTar(plain, list[1])
}

// putFile uploads a file.
func (h *host) putFile(key, path string) {
	h.T.Helper()
	f, err := os.Open(path)
	h.Check(err)
	defer f.Close()
	_, err = h.Cloud.S3.PutObject(h.T.Context(),
		&s3.PutObjectInput{Bucket: aws.String(h.Cloud.Name), Key: aws.String(key), Body: f})
	h.Check(err)
}

// savedForms writes a root file system in the forms of docker save, old and new, and as
// an OCI layout, in one layer and in two.
func savedForms(t *testing.T, rootfs string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	layer := func(path string) images.File {
		f, err := images.LayerFile(path)
		must(err)
		return f
	}
	lower, upper := splitLayers(t, rootfs, dir)
	one, two := images.Image{Files: []images.File{layer(rootfs)}},
		images.Image{Files: []images.File{layer(lower), layer(upper)}}
	forms := map[string]string{}
	for name, entries := range map[string][]images.Entry{
		"docker-two": two.Docker(), "docker25-one": one.Docker25(),
		"oci-two": two.OCI(),
	} {
		forms[name] = filepath.Join(dir, name)
		f, err := os.Create(forms[name])
		must(err)
		must(errors.Join(images.Write(f, entries...), f.Close()))
	}
	return forms
}

// splitLayers copies an archive's entries, header by header as they are, into two layers.
// The lower one has a directory more, which the upper one takes away again.
func splitLayers(t *testing.T, rootfs, dir string) (lower, upper string) {
	t.Helper()
	src, err := os.Open(rootfs)
	must(err)
	defer src.Close()
	lower, upper = filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	var out [2]*os.File
	for i, path := range []string{lower, upper} {
		out[i], err = os.Create(path)
		must(err)
	}
	count, from := [2]int{}, int64(0)
	for r := tar.NewReader(src); ; {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(err)
		data, err := src.Seek(0, io.SeekCurrent)
		must(err)
		to, which := data+(hdr.Size+511)/512*512, 0
		if in := strings.TrimPrefix(hdr.Name, "./"); strings.HasPrefix(in, "usr/lib/python3") ||
			strings.HasPrefix(in, "usr/lib/gcc") || strings.HasPrefix(in, "var/") {
			which = 1
		}
		count[which]++
		_, err = io.Copy(out[which], io.NewSectionReader(src, from, to-from))
		must(err)
		from = to
	}
	for i, more := range [][]images.Entry{
		{{Name: "opt/gone/"}, {Name: "opt/gone/x", Body: "x"}, {Name: "etc/gone", Body: "x"}},
		{{Name: "opt/.wh.gone"}, {Name: "etc/.wh.gone"}},
	} {
		_, err := out[i].Write(images.Tar(more...))
		must(errors.Join(err, out[i].Close()))
	}
	if count[0] < 1000 || count[1] < 1000 {
		t.Fatalf("%d and %d entries in the layers", count[0], count[1])
	}
	return lower, upper
}

// treeDigest is the digest of an image's tree without the configuration, which only an
// image in layers has.
func (h *host) treeDigest(img store.Image) string {
	h.T.Helper()
	f, err := os.Open(filepath.Join(h.dir(), "state", "manifests", strings.TrimPrefix(img.Tree.Digest, "sha256:")))
	h.Check(err)
	defer f.Close()
	m, err := fstree.ReadInventory(f)
	h.Check(err)
	n := len(m.Records)
	m.Records = slices.DeleteFunc(m.Records, func(r *fstree.Record) bool { return r.Path() == "image.json" })
	if n != len(m.Records)+1 {
		h.T.Errorf("%s: %d configurations beside rootfs", img.Key, n-len(m.Records))
	}
	return m.Digest()
}

// logCost logs what reading back took beside writing, by the journal's times.
func (h *host) logCost(img store.Image) {
	h.T.Helper()
	events, err := h.Store.History(h.T.Context(), img.ID)
	h.Check(err)
	at := map[string]time.Time{}
	for _, e := range events {
		at[name(e)] = e.At
	}
	written := at["step unpack filled"].Sub(at["step unpack formatted"])
	read := at["step unpack sealed"].Sub(at["step unpack filled"])
	h.T.Logf("%s: %s, %d entries, %d MB, %d adjusted: written in %s, read back in %s, ratio %.2f",
		img.Key, img.Tree.Shape, img.Tree.Entries, img.Tree.Bytes/1e6, img.Tree.Changed, written, read,
		read.Seconds()/written.Seconds())
}

// compareWithGNUTar compares a snapshot with what GNU tar extracts, changed as the policy
// documents.
func (h *host) compareWithGNUTar(img store.Image, path string) {
	h.T.Helper()
	dir := h.T.TempDir()
	h.Check(os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	cmd := exec.CommandContext(h.T.Context(), "tar", "--extract", "--file", path, "--directory",
		filepath.Join(dir, "rootfs"), "--preserve-permissions",
		"--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.T.Fatalf("tar: %v\n%s", err, out)
	}
	root, err := os.Open(dir)
	h.Check(err)
	defer root.Close()
	want, err := extract.ReadBack(h.T.Context(), root)
	h.Check(err)
	if n := asDistro(want); n != img.Tree.Changed {
		h.T.Errorf("GNU tar's tree has %d things that distro changes, the daemon changed %d", n, img.Tree.Changed)
	}
	snapshots, err := h.Store.SnapshotsOf(h.T.Context(), img.ID)
	h.Check(err)
	m, err := devmapper.MountDetached(snapshots[0].Path, ext4.MountInspect)
	h.Check(err)
	defer m.Close()
	got, err := extract.ReadBack(h.T.Context(), m.Root())
	h.Check(err)
	if diff := want.Diff(got, 10); len(diff) > 0 || want.Digest() != got.Digest() || got.Digest() != img.Tree.Digest {
		h.T.Errorf("GNU tar's tree differs:\n%s", strings.Join(diff, "\n"))
	}
}

// asDistro changes a tree as the distro policy documents it, and counts the changes:
// device nodes are left out, special bits and attributes of the system taken off,
// absolute links made relative.
func asDistro(m *fstree.Inventory) (changed int) {
	all := len(m.Records)
	m.Records = slices.DeleteFunc(m.Records, func(r *fstree.Record) bool {
		return !slices.Contains([]byte{fstree.TypeDir, fstree.TypeFile, fstree.TypeSymlink}, r.Type)
	})
	changed = all - len(m.Records)
	for _, r := range m.Records {
		const setuidSetgid, sticky = 0o6000, 0o1000
		if r.Mode&setuidSetgid != 0 || r.Type == fstree.TypeFile && r.Mode&sticky != 0 {
			changed++
			r.Mode &^= setuidSetgid
			if r.Type == fstree.TypeFile {
				r.Mode &^= sticky
			}
		}
		n := len(r.Xattrs)
		r.Xattrs = slices.DeleteFunc(r.Xattrs,
			func(x fstree.Xattr) bool { return !strings.HasPrefix(x.Name, "user.") })
		if len(r.Xattrs) < n {
			changed++
		}
		if target, ok := strings.CutPrefix(r.Target, "/"); ok {
			changed++
			rel, err := filepath.Rel(r.Parent.Path(), filepath.Join("rootfs", target))
			must(err)
			r.Target = rel
		}
	}
	return changed
}
