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
    --right test00090,test00012,test00169 \
    "Vor dunklem Hintergrund erscheint eine winzige Drei am linken Rand, danach gleitet eine handgeschriebene Zwei rechtswärts." \
    "Mitten im Bild erscheint eine winzige 3 auf weißem Grund." \
    "Am linken Rand verblasst eine Ziffer Vier, während eine riesige 5 in der Mitte sich auflöst."

part "done: the picture is $folder/queries.png, the run $run"
