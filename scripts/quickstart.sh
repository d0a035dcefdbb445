#!/usr/bin/env bash
# From a fresh clone to ranked videos, offline, on a laptop: scripts/quickstart.sh [FOLDER, default runs/quickstart]
# Makes a collection of moving handwriting, trains Quartet on it, tests it, ranks videos for three German queries and draws
# them. Rerun it to resume: finished steps are kept. Give another folder to start anew.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
folder=${1:-runs/quickstart}
set --
source scripts/setup.sh

run=$folder/quartet
# Threads wait for each other, which beside other work takes three times as long as a single one.
busy='import os; print(os.getloadavg()[0] > 0.75 * os.cpu_count())'
if [ -z "${OMP_NUM_THREADS:-}" ] && [ "$("$python" -c "$busy")" = True ]; then
    export OMP_NUM_THREADS=1
fi

part() {
    echo
    echo "== $1 ($SECONDS s)"
}

SECONDS=0
part "collection: one translated word in five is wrong"
if [ ! -d "$folder/VisualSearch/generated" ]; then
    "$python" -m nrccr generate "$folder/VisualSearch" --noise 20
fi

part "training and test"
if [ ! -f "$run/test/metrics.json" ]; then
    resume=()
    [ ! -f "$run/config.yaml" ] || resume=(--resume)
    "$python" -m nrccr train configs/quartet/generated.yaml --root "$folder/VisualSearch" --out "$run" --device cpu \
        --test 'data.languages=[de]' ${resume[@]+"${resume[@]}"}
fi

part "three German queries"
"$python" -m nrccr rank "$run" --root "$folder/VisualSearch" --device cpu --picture "$folder/queries.png" \
    --right test00201,test00273,test00012 \
    "Am oberen Rand ruht eine dicke Zwei, während eine dicke Sieben rechts verschwindet, und der Hintergrund wird weiß." \
    "In der Mitte kommt eine riesige handgeschriebene Zwei zum Vorschein, und der Hintergrund wird schwarz." \
    "Vor hellem Hintergrund kommt eine Ziffer Drei in der Mitte zum Vorschein."

part "done: the picture is $folder/queries.png, the run $run"
