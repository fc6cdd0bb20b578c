package archive

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/images"
	"imagemanager.internal/test/program"
)

// workshop is a directory in which archives are written, refused and mended.
type workshop struct {
	*testing.T
	dir string
}

func (w workshop) path(name string) string { return filepath.Join(w.dir, name) }

// skopeo puts its temporary files into the directory: /var/tmp may be read-only here.
const skopeo = `skopeo() { command skopeo --tmpdir . "$@"; }; `

// run runs a shell script in the directory.
func (w workshop) run(script string) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "sh", "-ec", skopeo+script) //nolint:gosec // the test's own
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// judge judges an archive in the directory. The policy is one that takes the habits of
// its writer.
func (w workshop) judge(name string) (*Plan, error) {
	w.Helper()
	b, err := os.ReadFile(w.path(name))
	check(w, err)
	return judgeBytes(w, b, Distro)
}

// refuse returns the rejection of an archive in the directory.
func (w workshop) refuse(name string, reason Reason) *Rejection {
	w.Helper()
	_, err := w.judge(name)
	r := asRejection(err)
	if r == nil || r.Reason != reason {
		w.Fatalf("not refused by %s: %v", reason, err)
	}
	return r
}

var (
	command     = regexp.MustCompile("`([^`]+)`")
	placeholder = regexp.MustCompile(`\b(IN|OUT|DIR)\b`)
	oneName     = regexp.MustCompile(`NAME being "([^"]+)"`)
)

// follow runs the command of a remedy, and judges what it writes.
func (w workshop) follow(remedy string) {
	w.Helper()
	found := command.FindStringSubmatch(remedy)
	if found == nil {
		w.Fatalf("no command in %q", remedy)
	}
	script := placeholder.ReplaceAllStringFunc(found[1], strings.ToLower)
	if name := oneName.FindStringSubmatch(remedy); name != nil {
		script = strings.ReplaceAll(script, "NAME", name[1])
	}
	w.run(script)
	plan, err := w.judge("out")
	check(w, err)
	checkPaths(w.T, images.Case{Has: "etc/hello usr/bin/tool"}, plan)
}

// newWorkshop makes the directory, with a root file system (plain.tar), two archives of
// docker save (image.tar, other.tar), both in one (two.tar), and with compressed layers
// (gzip.tar, gzip25.tar, and signed.tar in an OCI layout).
func newWorkshop(t *testing.T) workshop {
	t.Helper()
	w := workshop{t, t.TempDir()}
	plain := images.Tar(images.Root()...)
	im := images.Image{Layers: [][]byte{plain}}
	other := images.Image{Layers: [][]byte{plain, images.Tar(images.Entry{Name: "opt/x", Body: "x"})}}
	zipped := images.Image{
		Layers: [][]byte{gzipped(t, plain)}, DiffIDs: []string{"sha256:" + images.Sum(plain)},
		Media: mediaLayer + "+gzip",
	}
	for name, list := range map[string][]images.Entry{
		"plain.tar": images.Root(), "image.tar": im.Docker(), "other.tar": other.Docker(),
		"two.tar": joined(im.Docker(), other.Docker()), "gzip.tar": zipped.Docker(), "gzip25.tar": zipped.Docker25(),
		"signed.tar": signed(zipped),
	} {
		check(w, os.WriteFile(w.path(name), images.Tar(list...), 0o600))
	}
	return w
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	check(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

// joined is an archive of docker save with the images of two.
func joined(a, b []images.Entry) []images.Entry {
	var manifests []string
	list := images.Edit(append(a, images.Without(b, "repositories")...), "manifest.json", func(body string) string {
		manifests = append(manifests, strings.Trim(body, "[]"))
		return body
	})
	list = append(images.Without(list, "manifest.json"),
		images.Entry{Name: "manifest.json", Body: "[" + strings.Join(manifests, ",") + "]"})
	slices.SortFunc(list, func(a, b images.Entry) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(list, func(a, b images.Entry) bool { return a.Name == b.Name })
}

// signed is a layout of an image named v1.0, with a signature beside it.
func signed(im images.Image) []images.Entry {
	im.Index = func(o images.Object) {
		if list, ok := o["manifests"].([]images.Object); ok {
			list[0]["annotations"] = images.Object{"org.opencontainers.image.ref.name": "v1.0"}
			o["manifests"] = append(list, images.Object{
				"mediaType": mediaManifest, "digest": "sha256:" + images.Sum(nil), "size": 0,
				"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
			})
		}
	}
	return im.OCI()
}

// What the remedy of a refusal says leads to an archive that is accepted.
func TestRemedies(t *testing.T) {
	for _, p := range [][2]string{
		{"tar", "tar"},
		{"skopeo", "skopeo"},
		{"umoci", "umoci"},
		{"bzip2", "bzip2"},
		{"xz", "xz-utils"},
		{"zstd", "zstd"},
		{"mksquashfs", "squashfs-tools"},
	} {
		program.Require(t, p[0], p[1])
	}
	const twoNames = "skopeo copy docker-archive:image.tar oci:l:a; skopeo copy docker-archive:other.tar oci:l:v1.0; "
	for _, c := range []struct {
		name, script string // of the writer; it makes the file in, and perhaps the directory dir
		reason       Reason
	}{
		{"gzip", "gzip < plain.tar > in", "compressed:gzip"},
		{"bzip2", "bzip2 < plain.tar > in", "compressed:bzip2"},
		{"xz", "xz < plain.tar > in", "compressed:xz"},
		{"lzma", "xz --format=lzma < plain.tar > in", "compressed:lzma"},
		{"zstd", "zstd < plain.tar > in", "compressed:zstd"},
		{"image with gzip", "gzip < image.tar > in", "compressed:gzip"},
		{"squashfs", "mkdir s; tar -xf plain.tar -C s; mksquashfs s in", "format_squashfs"},

		{"OCI layers with gzip", "skopeo copy docker-archive:image.tar oci-archive:in:x", "compressed:gzip"},
		{
			"OCI layers with zstd",
			"skopeo copy --dest-compress-format zstd docker-archive:image.tar oci-archive:in:x", "compressed:zstd",
		},
		{
			"OCI layout of umoci", "umoci init --layout l; umoci new --image l:a; mkdir s; tar -xf plain.tar -C s; " +
				"umoci insert --rootless --image l:a s /; tar -cf in -C l .", "compressed:gzip",
		},
		{"two images with names", twoNames + "tar -cf in -C l .", "multiple_images"},
		{"directory of skopeo", "skopeo copy docker-archive:image.tar dir:dir; tar -cf in -C dir .", "bad_manifest"},
		{
			"runtime bundle", "skopeo copy docker-archive:image.tar oci:l:x; " +
				"umoci unpack --rootless --image l:x dir; tar -cf in -C dir .", "layout",
		},
		{
			"LXD image", "mkdir -p dir/rootfs dir/templates; tar -xf plain.tar -C dir/rootfs; " +
				"touch dir/metadata.yaml; tar -cf in -C dir metadata.yaml templates rootfs", "layout",
		},
		{"OCI layers with gzip, a signature beside", "cp signed.tar in", "compressed:gzip"},
		{"docker's layers with gzip", "cp gzip.tar in", "compressed:gzip"},
		{"docker's blobs with gzip", "cp gzip25.tar in", "compressed:gzip"},
		{"two images of docker", "cp two.tar in", "multiple_images"},
		{"image in a directory", "mkdir dir; tar -xf image.tar -C dir; tar -cf in dir", "layout"},
		{"root file system in a directory", "mkdir dir; tar -xf plain.tar -C dir; tar -cf in dir", "layout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkshop(t)
			w.run(c.script)
			w.follow(w.refuse("in", c.reason).Remedy)
		})
	}
}

// Options of tar that make an archive unacceptable are named, and without them it is
// accepted.
func TestOptionsOfTar(t *testing.T) {
	program.Require(t, "tar", "tar")
	program.Require(t, "bsdtar", "libarchive-tools")
	for _, c := range []struct {
		with, without string
		reason        Reason
		says          string
	}{
		{"tar -V label -cf in -C s .", "tar -cf out -C s .", UnknownType, "option -V"},
		{"tar -g list -cf in -C s .", "tar -cf out -C s .", UnknownType, "option -g"},
		{"tar -S -cf in -C s .", "tar -cf out -C s .", Sparse, "option -S"},
		{"tar --format=posix -S -cf in -C s .", "tar --format=posix -cf out -C s .", Sparse, "option -S"},
		{"bsdtar -cf in -C s .", "bsdtar --no-read-sparse -cf out -C s .", Sparse, "--no-read-sparse"},
		{"cat plain.tar image.tar > in", "cp plain.tar out; tar -Af out image.tar", TrailingGarbage, "option -A"},
		{"head -c 5000 plain.tar > in", "cp plain.tar out", ParseError, "upload the archive again"},
		{"head -c -1024 plain.tar > in", "cp plain.tar out", NoEOFMarker, "upload the archive again"},
	} {
		t.Run(c.with, func(t *testing.T) {
			w := newWorkshop(t)
			w.run("mkdir s; tar -xf plain.tar -C s; truncate -s 10M s/usr/hole; " + c.with)
			if text := w.refuse("in", c.reason).Error(); !strings.Contains(text, c.says) {
				t.Errorf("%s: %q does not say %q", c.with, text, c.says)
			}
			w.run(c.without)
			_, err := w.judge("out")
			check(t, err)
		})
	}
}
