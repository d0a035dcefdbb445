#!/usr/bin/env bash
# Trains NRCCR on Multi30K and tests its best epoch: ./do_all_multi30k.sh ROOTPATH [TASK] GPU [--resume | --overwrite] [key=value ...]
# TASK is 1 or 2; GPU is an id, ids as 0,1, or cpu; CONFIG=FILE takes another config, OUT=FOLDER another run folder.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/driver.sh"
train_task_and_test "${CONFIG:-$checkout/configs/nrccr/multi30k.yaml}" "$@"
