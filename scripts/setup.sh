#!/usr/bin/env bash
# Installs nrccr with its pinned requirements, and extras': scripts/setup.sh [dev|extract|fuzz|parquet|search|...]...
# Into the active virtual or conda environment, else into .venv in the checkout (made if missing). Quick when nothing has
# changed since. Sourced, it leaves the environment's interpreter in $python.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)

environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
interpreter=${environment:+$environment/bin/}python3
if ! "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: $interpreter is missing or older than Python 3.11; install Python 3.11 or newer and try again" >&2
    exit 2
fi
if [ -z "$environment" ]; then
    environment=$here/.venv
    # pip arrives last in a new environment, so one that was interrupted is made again.
    "$environment/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$environment"
fi
python=$environment/bin/python

pins=("$here/requirements.txt")
stamp=$environment/.nrccr
for extra in "$@"; do
    if [ ! -f "$here/requirements-$extra.txt" ]; then
        echo "setup: there is no extra $extra; see requirements-*.txt" >&2
        exit 2
    fi
    pins+=("$here/requirements-$extra.txt")
    stamp+=-$extra
done
stamp+=.stamp
hashes='import hashlib, pathlib, sys; print([hashlib.sha256(pathlib.Path(p).read_bytes()).hexdigest() for p in sys.argv[1:]])'
wanted="$here $("$python" -c "$hashes" "${pins[@]}" "$here/pyproject.toml" "$here/nrccr/__init__.py")"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "setup: installing into $environment, the first time for minutes" >&2
    "$python" -m pip install --quiet --disable-pip-version-check "${pins[@]/#/--requirement=}"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable "$here"
    echo "$wanted" >"$stamp"
fi
