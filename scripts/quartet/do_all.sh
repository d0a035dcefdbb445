#!/usr/bin/env bash
# Trains Quartet and tests its best epoch: scripts/quartet/do_all.sh NAME ROOTPATH GPU [--resume | --overwrite] [key=value ...]
# NAME is a file of configs/quartet without its ending; GPU is an id or cpu; OUT=FOLDER takes another run folder.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../driver.sh"
[ $# -ge 3 ] || fail "usage: [OUT=FOLDER] $0 NAME ROOTPATH GPU|cpu [--resume|--overwrite] [key=value ...]"
train_and_test "$checkout/configs/quartet/$1.yaml" "${@:2}"
