#!/usr/bin/env bash
# From nothing to a page that finds films for German queries: scripts/demo.sh [--no-serve] [FOLDER, default runs/demo]
# Renders films of moving handwriting, extracts features, trains two tiny translators, translates the English captions,
# trains NRCCR on that, indexes films that it has not seen, searches them and serves the page until Ctrl-C. Offline once
# the extras are installed (extract, search, serve, translate). Rerun it to resume: finished steps are kept. Give another
# folder to start anew. --no-serve ends before the page, for machines without a browser. Everything is small, to take
# minutes on two cores (6 min 30 s of processor time): VIDEOS (training, validation, test), CAPTIONS of each, STEPS of a
# translator, EPOCHS and the page's PORT change that: VIDEOS=600,100,300 scripts/demo.sh runs/larger
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
folder=runs/demo
serve=yes
for argument in "$@"; do
    case $argument in
        --no-serve) serve=no ;;
        -*) echo "usage: scripts/demo.sh [--no-serve] [FOLDER]" >&2 && exit 2 ;;
        *) folder=$argument ;;
    esac
done
source scripts/setup.sh extract search serve translate

collection=$folder/VisualSearch/generated
run=$folder/nrccr
query="In der Mitte wächst eine Sechs, dann sinkt eine große Sieben vor schwarzem Hintergrund."

part() {
    echo
    echo "== $1 ($SECONDS s)"
}

nrccr() {
    "$python" -m nrccr "$@"
}

SECONDS=0
part "films, with captions in English and German"
if [ ! -d "$collection" ]; then
    nrccr generate "$folder/VisualSearch" --media --noise 0 --videos "${VIDEOS:-400,50,100}" --captions "${CAPTIONS:-4}"
fi

part "features of the films, two frames a second"
if [ ! -d "$collection/FeatureData/films" ]; then
    nrccr extract "$collection/media" --model pixels --fps 2 --out "$collection/FeatureData/films" --device cpu
fi

part "a translator for each direction, trained on clean sentences, both at the same time"
translator() {
    [ -d "$folder/$1-$2" ] ||
        exec "$python" -W ignore scripts/tiny_translator.py "$1" "$2" "$folder/$1-$2" --steps "${STEPS:-600}"
}
translator en de &
there=$!
translator de en &
back=$!
trap 'kill "$there" "$back" 2>/dev/null || true' EXIT  # what runs in the background does not hear Ctrl-C
wait "$there"
wait "$back"
trap - EXIT

part "translations: English captions into German and back, German queries into English"
nrccr translate "$collection" --to de --model "$folder/en-de" --back-model "$folder/de-en" --translator tiny --beams 1 \
    --device cpu

part "training on the translations, and test with what people would write"
if [ ! -f "$run/test/metrics.json" ]; then
    resume=()
    [ ! -f "$run/config.yaml" ] || resume=(--resume)
    nrccr train configs/nrccr/generated.yaml --root "$folder/VisualSearch" --out "$run" --device cpu --test \
        ${resume[@]+"${resume[@]}"} data.translator=tiny data.feature=films train.epochs="${EPOCHS:-12}"
fi

part "index of the test films"
if [ ! -d "$folder/features" ]; then
    nrccr extract "$collection"/media/test*.mp4 --model pixels --fps 2 --out "$folder/features" --device cpu
fi
if [ ! -f "$folder/index/CURRENT" ]; then
    nrccr index "$run" --features "$folder/features" --out "$folder/index" --device cpu
fi

part "a German query; test00033 is the film that it describes"
nrccr search "$folder/index" "$query" --top 5 --device cpu

part "done; more queries: nrccr search $folder/index QUERY"
if [ "$serve" = yes ]; then
    nrccr serve "$folder/index" --media "$collection/media" --port "${PORT:-7860}" --device cpu
fi
