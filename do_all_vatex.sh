#!/usr/bin/env bash
# Trains NRCCR on VATEX and tests its best epoch: ./do_all_vatex.sh ROOTPATH GPU [--resume | --overwrite] [key=value ...]
# GPU is an id, ids as 0,1, or cpu; CONFIG=FILE takes another config, OUT=FOLDER another run folder.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/driver.sh"
train_and_test "${CONFIG:-$checkout/configs/nrccr/vatex.yaml}" "$@"
