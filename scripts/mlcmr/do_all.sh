#!/usr/bin/env bash
# Trains MLCMR and tests its best epoch: scripts/mlcmr/do_all.sh COLLECTION FEATURE TRAIN_MODE LABELS TARGET ROOTPATH [GPU] [options] [key=value ...]
# TRAIN_MODE: parallel | unparallel; LABELS: human_label | translate; TARGET: zh | en; GPU: an id, ids as 0,1, or cpu; CONFIG=FILE takes
# another config, OUT=FOLDER another run folder. A published example: vatex i3d_kinetics parallel human_label zh ROOTPATH
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../driver.sh"
train_mlcmr "$@"
