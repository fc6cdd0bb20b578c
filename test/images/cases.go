package images

import "slices"

// Case is one archive and what must become of it. An empty outcome means that it is
// accepted; anything else is the reason's code.
type Case struct {
	Group, Name             string
	Bytes                   []byte
	Strict, Distro, Trusted string
	Violation               bool   // it is a security violation where it is refused
	Says                    string // the refusal's text contains it
	Adjusted                int    // entries that Distro adjusts where it accepts
	Shape                   string // where it is accepted
	Has                     string // paths that are there where it is accepted; those with "!" before them are not
}

// Outcome is what must become of the archive under a policy.
func (c Case) Outcome(policy string) string {
	switch policy {
	case "distro":
		return c.Distro
	case "trusted":
		return c.Trusted
	}
	return c.Strict
}

// Cases builds and returns all archives.
func Cases() []Case {
	var all []Case
	for _, g := range []struct {
		name string
		list []Case
	}{
		{name: "good", list: goodCases()},
		{name: "names", list: slices.Concat(nameCases(), duplicateCases(), placedCases())},
		{name: "symlinks", list: slices.Concat(symlinkCases(), escapingCases())},
		{name: "hardlinks", list: hardlinkCases()},
		{name: "modes", list: modeCases()},
		{name: "types", list: typeCases()},
		{name: "xattrs", list: xattrCases()},
		{name: "framing", list: slices.Concat(framingCases(), directoryCases())},
		{name: "pax", list: slices.Concat(paxCases(), brokenPAXCases())},
		{name: "formats", list: formatCases()},
		{name: "shape", list: slices.Concat(shapeCases(), otherShapeCases())},
		{name: "docker", list: slices.Concat(dockerCases(), dockerLayerCases())},
		{name: "oci", list: slices.Concat(ociCases(), artifactCases(), platformCases())},
		{name: "layers", list: slices.Concat(layerCases(), refusedLayerCases(), unterminatedCases())},
	} {
		for _, c := range g.list {
			c.Group = g.name
			all = append(all, c)
		}
	}
	return all
}

// good is an archive that every policy accepts as it is.
func good(name, shape string, b []byte) Case { return Case{Name: name, Bytes: b, Shape: shape} }

// refused is an archive that no policy accepts.
func refused(name, reason string, b []byte) Case {
	return Case{Name: name, Bytes: b, Strict: reason, Distro: reason, Trusted: reason}
}

// refusedAfter is refused by every policy, and by Strict for another reason that comes
// first.
func refusedAfter(name, strict, others string, b []byte) Case {
	return Case{Name: name, Bytes: b, Strict: strict, Distro: others, Trusted: others}
}

// attack is refused as a security violation.
func attack(name, reason string, b []byte) Case {
	c := refused(name, reason, b)
	c.Violation = true
	return c
}

// leaves names paths that are in the finished tree, or with "!" are not.
func (c Case) leaves(paths string) Case {
	c.Has = paths
	return c
}

// strictly is an archive that only Strict refuses and Distro adjusts.
func strictly(name, reason string, adjusted int, b []byte) Case {
	return Case{Name: name, Bytes: b, Strict: reason, Adjusted: adjusted, Shape: "flat"}
}

func (c Case) shaped(shape string) Case {
	c.Shape = shape
	return c
}

// with is a small root file system with the entries added.
func with(more ...Entry) []byte { return Tar(Root(more...)...) }

// before is one with the entries first.
func before(first ...Entry) []byte { return Tar(slices.Concat(first, Root())...) }
