#!/usr/bin/env bash
# Installs what is missing, then lint, types, the documentation site and tests: scripts/test.sh [pytest options]
# Slow, GPU and network tests are left out; `-m slow` (gpu, network) runs those. Several tests run at a time, one file in one
# process; `-n 0` runs one after the other, as a debugger needs it.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
source scripts/setup.sh dev extract parquet translate search serve docs

"$python" -m ruff check .
"$python" -m mypy
scripts/docs.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$python" -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
