#!/usr/bin/env bash
# Trains C2KD's teachers, one after the other, and tests them: scripts/c2kd/teachers.sh DATASET ROOTPATH GPU [key=value ...]
# DATASET is msrvtt, youcook2, vatex, rudder or multi30k-small; GPU is an id, ids as 0,1, or cpu; OUT=FOLDER gives them folders in
# there, named as in the config; TEACHERS="xlmr mbert" trains some only. With --resume unfinished ones are resumed.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/driver.sh"
[ $# -ge 3 ] || fail "usage: [OUT=FOLDER] [TEACHERS=NAMES] $0 DATASET ROOTPATH GPU|cpu [--resume|--overwrite] [key=value ...]"
[ -z "${CONFIG:-}" ] || fail "CONFIG is not used here; name the teachers as TEACHERS, or call nrccr train"
dataset=$1
shift
config_of "$dataset" translate-train >/dev/null
all=$(cd "$checkout/configs/c2kd" && for file in "$dataset"-teacher-*.yaml; do name=${file##*-}; echo "${name%.yaml}"; done)
for teacher in ${TEACHERS:-$all}; do
    [ -f "$checkout/configs/c2kd/$dataset-teacher-$teacher.yaml" ] || fail "no teacher '$teacher' of $dataset; choose from $(echo $all)"
done
for teacher in ${TEACHERS:-$all}; do
    name=$dataset-teacher-$teacher
    folder=${OUT:+$OUT/$name}
    given=()
    for argument in "$@"; do
        if [ "$argument" != --resume ] || [ -f "${folder:-runs/$name-s$(seed_of "$@")}/config.yaml" ]; then
            given+=("$argument")
        fi
    done
    # In a shell of its own, which the run replaces.
    (OUT=$folder train_and_test "$(config_of "$dataset" "teacher-$teacher")" "${given[@]}")
done
