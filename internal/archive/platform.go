package archive

import (
	"cmp"
	"slices"
	"strings"
)

// imagePlatform is what an image runs on, by its descriptor or its configuration. An
// empty field means that it is not said.
type imagePlatform struct {
	Platform
	variant string
}

// architectures are other names for those of Go, with the variant that some imply.
// Source: containerd/platforms, database.go.
var architectures = map[string][2]string{
	"x86_64": {"amd64"}, "x86-64": {"amd64"}, "i386": {"386"}, "aarch64": {"arm64"},
	"armhf": {"arm", "v7"}, "armel": {"arm", "v6"},
}

// variants has the variants of architectures, the best first. An image may be started on
// any machine, so the best is the one that most machines run, as in containerd. Variants
// for newer machines come last; containerd takes them on such machines only.
var variants = map[string][]string{
	"amd64": {"v1", "v2", "v3", "v4"},
	"arm64": {"v8", "v9"},
	"arm":   {"v7", "v6", "v5", "v8"},
}

// platformIn returns the platform in a descriptor's platform or in a configuration, by
// the names of Go.
func platformIn(o object) (imagePlatform, error) {
	var values [3]string
	for i, key := range []string{"os", "architecture", "variant"} {
		v, err := o.stringAt(key)
		if err != nil {
			return imagePlatform{}, err
		}
		values[i] = strings.ToLower(v)
	}
	p := imagePlatform{Platform{values[0], values[1]}, values[2]}
	if name, ok := architectures[p.Architecture]; ok {
		p.Architecture = name[0]
		if p.variant == "" {
			p.variant = name[1]
		}
	}
	if p.variant != "" && !strings.HasPrefix(p.variant, "v") && variants[p.Architecture] != nil {
		p.variant = "v" + p.variant
	}
	return p, nil
}

// fits reports whether an image may be for the wanted platform: what is not said is no
// contradiction.
func (p imagePlatform) fits(want Platform) bool {
	return (p.OS == "" || p.OS == want.OS) && (p.Architecture == "" || p.Architecture == want.Architecture)
}

// rank is 0 for the best variant of an architecture, and higher for others.
func (p imagePlatform) rank() int {
	if p.variant == "" {
		return 0
	}
	list := variants[p.Architecture]
	if i := slices.Index(list, p.variant); i >= 0 {
		return i
	}
	return len(list) + 1
}

// or takes what is not said from another source.
func (p imagePlatform) or(other imagePlatform) imagePlatform {
	p.OS, p.Architecture = cmp.Or(p.OS, other.OS), cmp.Or(p.Architecture, other.Architecture)
	p.variant = cmp.Or(p.variant, other.variant)
	return p
}

// String returns the platform as it is written, such as linux/arm64/v8.
func (p imagePlatform) String() string { return strings.Trim(p.Platform.String()+"/"+p.variant, "/") }

func (p Platform) String() string { return p.OS + "/" + p.Architecture }
