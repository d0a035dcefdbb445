#!/usr/bin/env bash
# Tests a run folder or a published checkpoint on MSCOCO: ./do_test_mscoco.sh ROOTPATH MODELDIR IMAGE_PATH GPU [key=value ...]
# IMAGE_PATH is the folder of images, or None for ResNet vectors; MODELDIR is a run folder, or holds a published model_best.pth.tar.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/driver.sh"
test_image_run mscoco "$@"
