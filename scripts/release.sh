#!/usr/bin/env bash
# Builds and checks what a release publishes: scripts/release.sh [FOLDER, default dist]
# The source distribution, the wheel that is built of it, then twine's and check-wheel-contents' checks. Nothing is
# uploaded. Offline once installed.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
folder=${1:-dist}
set --
source scripts/setup.sh dev

mkdir -p "$folder"
if [ -n "$(ls -A "$folder")" ]; then
    echo "release: $folder is not empty; remove what is in it or give another folder" >&2
    exit 2
fi
"$python" -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' "$folder" >/dev/null
"$python" -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
    --wheel-dir "$folder" "$folder"/nrccr-*.tar.gz
"$python" -m twine check --strict "$folder"/*
"$python" -m check_wheel_contents "$folder"/*.whl
