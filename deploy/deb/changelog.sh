#!/bin/sh
# Prints the changelog of a package in Debian's format. What has changed is in
# CHANGELOG.md, which the package has, too.
set -eu
cat <<END
container-image-manager ($1) unstable; urgency=medium

  * See CHANGELOG.md.gz beside this file.

 -- Container Image Manager <maintainers@imagemanager.internal>  $(git log -1 --format=%cD)
END
