#!/usr/bin/env bash
# Tests an MLCMR run or published checkpoint in both query languages: scripts/mlcmr/do_test.sh COLLECTION ROOTPATH MODELDIR [GPU] [key=value ...]
# MODELDIR is a run folder, or holds a published model_best.pth.tar; GPU is an id, ids as 0,1, or cpu.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../driver.sh"
test_mlcmr "$@"
