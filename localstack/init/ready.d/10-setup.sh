#!/bin/sh
# The emulator runs this when its services are ready. setup.sh lies two directories up, here as in the container: the compose file
# mounts it so. The emulator takes any credentials; real ones have no business there.
set -eu
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
unset AWS_PROFILE AWS_SESSION_TOKEN
exec "$(dirname "$0")/../../setup.sh" \
	--bucket "${S3_BUCKET:-container-images}" \
	--endpoint-url "${AWS_ENDPOINT_URL:-http://localhost:4566}" "$@"
