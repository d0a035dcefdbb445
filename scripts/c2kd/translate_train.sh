#!/usr/bin/env bash
# Trains C2KD's translate-train baseline and tests it: scripts/c2kd/translate_train.sh DATASET ROOTPATH GPU [key=value ...]
# DATASET is msrvtt, youcook2, vatex, rudder or multi30k-small; GPU is an id, ids as 0,1, or cpu; CONFIG=FILE takes another config,
# OUT=FOLDER another run folder.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/driver.sh"
train_stage translate-train "$@"
