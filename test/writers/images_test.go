package writers

const (
	docker = "docker"
	oci    = "oci"
)

// imageWriters write images of two layers, from the one that prepare.sh has made with
// umoci, or by their own means.
func imageWriters() []writer {
	return []writer{
		{
			tool: "umoci", how: "umoci repack, then tar of the layout", shape: oci,
			script: `tar -C "$LAYOUT" -cf "$OUT" .`,
		},
		{
			tool: "umoci", how: "umoci unpack, then tar of the bundle", shape: bundle,
			script: `tar -C "$UNPACKED" -cf "$OUT" .`,
		},
		{
			tool: "skopeo", how: "skopeo copy … docker-archive:", shape: docker,
			script: `skopeo copy -q "oci:$LAYOUT:image" "docker-archive:$OUT:image:latest"`,
		},
		{
			tool: "skopeo", how: "skopeo copy … docker-archive: of mmdebstrap's", shape: docker, tree: debian,
			script: `umoci init --layout "$WORK/layout"
umoci new --image "$WORK/layout:image"
umoci raw add-layer --image "$WORK/layout:image" "$CACHE/debian-minbase.tar"
skopeo copy -q "oci:$WORK/layout:image" "docker-archive:$OUT:image:latest"`,
		},
		{
			tool: "skopeo", how: "skopeo copy … oci-archive:", shape: oci,
			script: `skopeo copy -q "oci:$LAYOUT:image" "oci-archive:$OUT:image"`,
		},
		{
			tool: "skopeo", how: "skopeo copy --dest-oci-accept-uncompressed-layers docker-archive:… oci-archive:",
			shape: oci,
			script: `skopeo copy -q "oci:$LAYOUT:image" "docker-archive:$WORK/plain.tar"
skopeo copy -q --dest-oci-accept-uncompressed-layers "docker-archive:$WORK/plain.tar" "oci-archive:$OUT:image"`,
		},
		{
			tool: "skopeo", how: "skopeo copy … dir:, then tar", shape: other,
			script: `skopeo copy -q "oci:$LAYOUT:image" "dir:$WORK/dir" && tar -C "$WORK/dir" -cf "$OUT" .`,
		},
		{
			tool: "buildah", how: "buildah push … docker-archive:", shape: docker,
			script: `buildah push -q image "docker-archive:$OUT:image:latest"`,
		},
		{
			tool: "buildah", how: "buildah push … oci-archive:", shape: oci,
			script: `buildah push -q image "oci-archive:$OUT:image"`,
		},
		{
			tool: "buildah", how: "buildah commit … oci-archive:", shape: oci,
			script: `buildah commit -q --rm "$(buildah from image)" "oci-archive:$OUT:image"`,
		},
		{
			tool: "podman", how: "podman save", shape: docker,
			script: `podman save -q -o "$OUT" image`,
		},
		{
			tool: "podman", how: "podman save --format=oci-archive", shape: oci,
			script: `podman save -q --format=oci-archive -o "$OUT" image`,
		},
		{
			tool: "podman", how: "podman export", shape: flat,
			script: `podman export -o "$OUT" "$(podman create --network=none image true)"`,
		},
		{
			tool: "crane", how: "crane pull --format=legacy", shape: docker,
			script: `crane pull --format=legacy "$IMAGE" "$OUT"`,
		},
		{
			tool: "crane", how: "crane pull", shape: docker,
			script: `crane pull "$IMAGE" "$OUT"`,
		},
		{
			tool: "crane", how: "crane pull --format=oci, then tar", shape: oci,
			script: `crane pull --format=oci "$IMAGE" "$WORK/pulled" && tar -C "$WORK/pulled" -cf "$OUT" .`,
		},
		{
			tool: "crane", how: "crane export", shape: flat,
			script: `crane export "$IMAGE" "$OUT"`,
		},
		{
			tool: "crane", how: "crane pull, skopeo copy docker-archive:… docker-archive:…", shape: docker,
			script: `crane pull "$IMAGE" "$WORK/pulled.tar"
skopeo copy -q "docker-archive:$WORK/pulled.tar" "docker-archive:$OUT:image:latest"`,
		},
		{
			tool: "ko", how: "ko build --tarball", shape: docker,
			script: `cd "$APP" && ko build --sbom=none --push=false --tarball="$OUT" .`,
		},
		{
			tool: "ko", how: "ko build, skopeo copy docker://… docker-archive:", shape: docker,
			script: `cd "$APP" && image=$(ko build --sbom=none --bare .)
skopeo copy -q --src-tls-verify=false "docker://$image" "docker-archive:$OUT:image:latest"`,
		},
	}
}
