#!/usr/bin/env bash
# Tests a run folder or a published checkpoint on VATEX: ./do_test_vatex.sh ROOTPATH MODELDIR GPU [key=value ...]
# GPU is an id, ids as 0,1, or cpu; MODELDIR is a run folder, or holds a published model_best.pth.tar.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/driver.sh"
test_run vatex "$@"
