#!/bin/sh
# prepare.sh plain|full DIR makes in DIR what the writers write: a tree, a repository with
# it, and an image of two layers, which is also pushed as $IMAGE, and made with buildah.
set -eu
kind=$1
dir=$2
here=$(dirname "$(realpath "$0")")

mkdir -p "$dir/tree" "$dir/bundle" "$dir/app"
cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "vfs"
graphroot = "$dir/store"
runroot = "$dir/run"
EOF

"$here/tree.sh" "$kind" "$dir/tree"
cp -a "$dir/tree" "$dir/bundle/rootfs"

cp -a "$dir/tree" "$dir/repository"
git -C "$dir/repository" init -q
git -C "$dir/repository" add -A
git -C "$dir/repository" -c user.name=x -c user.email=x@localhost commit -qm x

layout=$dir/layout:image
umoci init --layout "$dir/layout"
umoci new --image "$layout"
umoci unpack --image "$layout" "$dir/unpacked"
cp -a "$dir/tree/." "$dir/unpacked/rootfs/"
umoci repack --refresh-bundle --image "$layout" "$dir/unpacked"
"$here/tree.sh" upper "$dir/unpacked/rootfs"
umoci repack --refresh-bundle --image "$layout" "$dir/unpacked"
skopeo copy -q --dest-tls-verify=false "oci:$layout" "docker://$IMAGE"

tar --format=posix --xattrs --xattrs-include='*' -C "$dir/tree" -cf "$dir/tree.tar" .
container=$(buildah from scratch)
buildah add -q "$container" "$dir/tree.tar" /
buildah commit -q --rm "$container" lower
container=$(buildah from lower)
"$here/tree.sh" upper "$(buildah mount "$container")"
buildah commit -q --rm "$container" image

cat >"$dir/app/go.mod" <<EOF
module example.com/app
go 1.26
EOF
cat >"$dir/app/main.go" <<EOF
package main

func main() {}
EOF
