package archive

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

// manifestRef is one thing in an index that is no index.
type manifestRef struct {
	descriptor object
	digest     string
	platform   imagePlatform
	artifact   string // its type, if it is known to be no image
	name       string // of the layout's entry that leads to it
}

// newManifestRef reads what the descriptor itself says.
func newManifestRef(d object) (m manifestRef, err error) {
	m.descriptor = d
	if m.digest, err = d.stringAt("digest"); err != nil {
		return m, err
	}
	p, err := d.objectAt("platform")
	if err != nil {
		return m, err
	}
	if m.platform, err = platformIn(p); err != nil {
		return m, err
	}
	m.artifact, err = describedArtifact(d, m.platform)
	return m, err
}

// candidate is an image for the wanted platform. Its layers have not been read.
type candidate struct {
	manifest object
	spec     *imageSpec
	name     string
	rank     int
	missing  *Rejection // its manifest is not in the archive
}

// choice is the choice among the images of an index, so far.
type choice struct {
	want      Platform
	seen      map[string]bool // digests of manifests that were read
	best      *candidate
	equal     []string // names of the candidates that are as good as the best, itself included
	others    []string // platforms of images for others
	artifacts []string // types of what is no image
}

// chooseImage returns the one image for the wanted platform, of the best variant. All
// names for one manifest are one image.
func (im *imageReader) chooseImage(ctx context.Context, list []object) (*candidate, error) {
	c := &choice{want: im.opts.Platform, seen: map[string]bool{}}
	for _, d := range list {
		name, err := refName(d)
		if err != nil {
			return nil, err
		}
		err = im.eachManifest(ctx, []object{d}, 0, func(m manifestRef) error {
			m.name = name
			return im.consider(ctx, c, m)
		})
		if err != nil {
			return nil, err
		}
	}
	switch {
	case c.best == nil:
		return nil, c.refuseNone()
	case len(c.equal) > 1:
		return nil, c.refuseSeveral()
	case c.best.missing != nil:
		return nil, c.best.missing
	}
	return c.best, nil
}

// refuseNone refuses an index without an image for the platform.
func (c *choice) refuseNone() *Rejection {
	if len(c.others) == 0 && len(c.artifacts) > 0 {
		r := refuse(BadManifest, "an artifact (%s), not an image", listShort(c.artifacts))
		r.Remedy = "upload the image that it belongs to"
		return r
	}
	return refusePlatform(c.want, c.others...)
}

// refusePlatform refuses what has images for other platforms only.
func refusePlatform(want Platform, others ...string) *Rejection {
	r := refuse(NoPlatform, "no image for %s, but for: %s", want, listShort(others))
	if len(others) == 0 {
		r = refuse(NoPlatform, "no image for %s: the index is empty", want)
	}
	r.Remedy = fmt.Sprintf("build or pull the image for %s, and save that", want)
	return r
}

// refuseSeveral refuses an index with several images for the platform.
func (c *choice) refuseSeveral() *Rejection {
	r := refuse(MultipleImages, "%d images for %s", len(c.equal), c.want)
	r.Remedy = "put one image into the layout"
	if !slices.ContainsFunc(c.equal, func(name string) bool { return !plainName().MatchString(name) }) {
		r.Remedy = "copy one of them: " + skopeoCopy("oci-archive:IN:NAME") + ", NAME being " + listShort(c.equal)
	}
	return r
}

// consider looks at one thing in an index.
func (im *imageReader) consider(ctx context.Context, c *choice, m manifestRef) error {
	switch {
	case m.artifact != "":
		c.artifacts = append(c.artifacts, m.artifact)
		return nil
	case !m.platform.fits(c.want): // its manifest need not be there
		c.others = append(c.others, m.platform.String())
		return nil
	case c.seen[m.digest]:
		return nil
	}
	c.seen[m.digest] = true
	manifest, err := im.blobDocument(ctx, m.descriptor)
	if r := asRejection(err); r != nil && r.Reason == MissingBlob {
		c.add(&candidate{rank: m.platform.rank(), name: m.name, missing: r})
		return nil
	}
	if err != nil {
		return err
	}
	if m.artifact, err = artifactInManifest(manifest); err != nil {
		return err
	}
	if m.artifact != "" {
		c.artifacts = append(c.artifacts, m.artifact)
		return nil
	}
	return im.considerImage(ctx, c, m, manifest)
}

// considerImage compares the platforms of the descriptor and of the configuration with
// the wanted one.
func (im *imageReader) considerImage(ctx context.Context, c *choice, m manifestRef, manifest object) error {
	spec, err := im.readConfig(ctx, manifest)
	if err != nil {
		return err
	}
	if !spec.platform.fits(c.want) {
		c.others = append(c.others, spec.platform.String())
		return nil
	}
	c.add(&candidate{manifest: manifest, spec: spec, name: m.name, rank: m.platform.or(spec.platform).rank()})
	return nil
}

// add adds a candidate. Only the best is kept.
func (c *choice) add(n *candidate) {
	switch {
	case c.best == nil || n.rank < c.best.rank:
		c.best, c.equal = n, []string{n.name}
	case n.rank == c.best.rank:
		c.equal = append(c.equal, n.name)
	}
}

// refName returns the name of an image in a layout. Source: OCI image specification,
// image-layout.md, "index.json file".
func refName(d object) (string, error) {
	annotations, err := d.objectAt("annotations")
	if err != nil {
		return "", err
	}
	return annotations.stringAt("org.opencontainers.image.ref.name")
}

// ociSource returns how skopeo names an image of a layout, or "" if it cannot. Without a
// name it takes a layout with one entry only.
func ociSource(name string, entries int) string {
	switch {
	case entries == 1:
		return "oci-archive:IN"
	case plainName().MatchString(name):
		return "oci-archive:IN:" + name
	}
	return ""
}

// maxListed is how many different things a message lists.
const maxListed = 5

// listShort lists texts from an archive for a message, each once.
func listShort(texts []string) string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	more := ""
	if n := len(texts) - maxListed; n > 0 {
		texts, more = texts[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = fmt.Sprintf("%q", fstree.TruncateName(t))
	}
	return strings.Join(quoted, ", ") + more
}
