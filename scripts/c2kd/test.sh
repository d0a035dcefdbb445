#!/usr/bin/env bash
# Tests a run or a published checkpoint of C2KD in every language: scripts/c2kd/test.sh DATASET ROOTPATH MODELDIR GPU [key=value ...]
# MODELDIR is a run folder, or holds a published latest_model.pth: then text.model=NAME_OR_FOLDER is its encoder, LaBSE
# unless given.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/driver.sh"
[ $# -ge 4 ] || fail "usage: $0 DATASET ROOTPATH MODELDIR GPU|cpu [--split val] [--out FOLDER] [key=value ...]"
config_of "$1" translate-train >/dev/null
case $1 in multi30k*) collection=multi30k ;; *) collection=multi_$1 ;; esac
shift
test_run "$collection" "$@"
