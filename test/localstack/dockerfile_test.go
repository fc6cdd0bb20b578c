package localstack

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var dockerfilePath = filepath.Join(root, "deploy", "Dockerfile")

// The image needs what the Dockerfile copies, and no more of the repository than
// dockerignore lets through.
func TestDockerfile(t *testing.T) {
	text, ignore := read(t, dockerfilePath), read(t, dockerfilePath+".dockerignore")
	copied := regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(text, -1)
	if len(copied) < 3 {
		t.Fatalf("copies %q only", copied)
	}
	for _, line := range copied {
		for _, name := range strings.Fields(line[1]) {
			if !fileExists(filepath.Join(root, name)) || !strings.Contains(ignore, "\n!"+name+"\n") {
				t.Errorf("%s is not in the repository, or not let through", name)
			}
		}
	}
}

// The program is built with the Go release of go.mod, on the Debian that it runs on.
func TestDockerfileReleases(t *testing.T) {
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, filepath.Join(root, "go.mod")))
	bases := regexp.MustCompile(`(?m)^FROM golang:(\S+)-(\w+) AS build$|^FROM debian:(\w+)-slim$`).
		FindAllStringSubmatch(read(t, dockerfilePath), -1)
	if release == nil || len(bases) != 2 || bases[0][1] != release[1] || bases[0][2] != bases[1][3] {
		t.Errorf("go.mod has %q, the images are %q", release, bases)
	}
}

// The image has the packages that the Debian package depends on and recommends. The C
// library is there already, and modules are loaded by the host.
func TestDockerfilePackages(t *testing.T) {
	var deb struct{ Depends, Recommends []string }
	decodeYAML(t, read(t, filepath.Join(root, "deploy", "deb", "nfpm.yaml")), &deb)
	want := slices.DeleteFunc(slices.Concat(deb.Depends, deb.Recommends), func(name string) bool {
		return name == "${LIBC}" || name == "kmod"
	})
	slices.Sort(want)
	got := regexp.MustCompile(`--no-install-recommends (.+) \\\n`).FindStringSubmatch(read(t, dockerfilePath))
	if len(want) < 3 || got == nil || !slices.Equal(strings.Fields(got[1]), want) {
		t.Errorf("the image has %q, the package needs %q", got, want)
	}
}

// What the compose file builds is that image.
func TestComposeBuilds(t *testing.T) {
	for name, s := range compose(t).Services {
		build, isBuilt := s.Build.(map[string]any)
		file, _ := build["dockerfile"].(string)
		if isBuilt && (build["context"] != ".." || filepath.Join(root, file) != dockerfilePath) {
			t.Errorf("%s is built from %v", name, build)
		}
	}
}
