# Sourced by the do_all_*.sh and do_test_*.sh drivers; holds what they share: arguments, devices, the interpreter.
checkout=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)

fail() {
    echo "$(basename "$0"): $1" >&2
    exit 2
}

# GPU argument -> device: cpu, one id, or several with commas between them.
device_of() {
    case $1 in
        cpu) echo cpu ;;
        '' | *[!0-9,]* | ,* | *, | *,,*) fail "GPU must be cpu, an id such as 0 or several as 0,1, not '$1'" ;;
        *,*) echo "$1" ;;
        *) echo "cuda:$1" ;;
    esac
}

# Replaces the shell, so that signals reach the run. Works from any folder and without an installed package.
nrccr() {
    local python=python3
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$checkout/.venv/bin/python" ]; then
        python=$checkout/.venv/bin/python
    fi
    PYTHONPATH=$checkout${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m nrccr "$@"
}

# train_and_test CONFIG ROOTPATH GPU [options] [key=value ...]
train_and_test() {
    [ $# -ge 3 ] || fail "usage: [CONFIG=FILE] [OUT=FOLDER] $0 ROOTPATH GPU|cpu [--resume|--overwrite] [key=value ...]"
    local config=$1 root=$2 device
    device=$(device_of "$3")
    shift 3
    nrccr train "$config" --root "$root" --device "$device" --test ${OUT:+--out "$OUT"} "$@"
}

# test_run COLLECTION ROOTPATH MODELDIR GPU [options] [key=value ...]
test_run() {
    [ $# -ge 4 ] || fail "usage: $0 ROOTPATH MODELDIR GPU|cpu [--split val] [--out FOLDER] [key=value ...]"
    local collection=$1 root=$2 model=$3 device
    device=$(device_of "$4")
    shift 4
    nrccr test "$model" --root "$root" --device "$device" "data.collection=$collection" "$@"
}

# train_task_and_test CONFIG ROOTPATH [TASK] GPU [options] [key=value ...]; arguments before the first option or
# key=value are counted.
train_task_and_test() {
    local usage="usage: [CONFIG=FILE] [OUT=FOLDER] $0 ROOTPATH [TASK] GPU|cpu [--resume|--overwrite] [key=value ...]"
    local config=$1 given=0 argument task
    shift
    for argument in "${@:2}"; do # ROOTPATH may hold any character
        case $argument in -* | *=*) break ;; esac
        given=$((given + 1))
    done
    if [ $given -eq 2 ]; then
        task=$2
        case $task in 1 | 2) ;; *) fail "TASK must be 1 or 2, not '$task'" ;; esac
        for argument in "${@:4}"; do
            case $argument in
                "data.task=$task") ;;
                data.task=*) fail "TASK $task and $argument contradict each other; leave one out" ;;
            esac
        done
        set -- "$1" "${@:3}" "data.task=$task"
    elif [ $given -ne 1 ]; then
        fail "$usage"
    fi
    train_and_test "$config" "$@"
}

# test_image_run COLLECTION ROOTPATH MODELDIR IMAGE_PATH|None GPU [options] [key=value ...]
test_image_run() {
    [ $# -ge 5 ] || fail "usage: $0 ROOTPATH MODELDIR IMAGE_PATH|None GPU|cpu [--split val] [--out FOLDER] [key=value ...]"
    local images=$4 quote="'"
    set -- "${@:1:3}" "${@:5}"
    [ "$images" = None ] || set -- "$@" "image.path='${images//$quote/$quote$quote}'"
    test_run "$@"
}

# split_gpu [GPU] [options] [key=value ...]: sets `device` to the options that choose it, `rest` to what follows.
split_gpu() {
    device=() rest=("$@")
    case ${1:-} in
        '' | -* | *=*) ;;
        *) local chosen && chosen=$(device_of "$1") && device=(--device "$chosen") rest=("${@:2}") ;;
    esac
}

# seed_of [options] [key=value ...] -> the seed that they give, or else the usual one.
seed_of() {
    local seed=0 argument
    for argument in "$@"; do
        case $argument in seed=*) seed=${argument#seed=} ;; esac
    done
    echo "$seed"
}

# train_mlcmr COLLECTION FEATURE TRAIN_MODE LABELS TARGET ROOTPATH [GPU] [options] [key=value ...]
train_mlcmr() {
    [ $# -ge 6 ] || fail "usage: [CONFIG=FILE] [OUT=FOLDER] $0 COLLECTION FEATURE TRAIN_MODE LABELS TARGET ROOTPATH [GPU|cpu] [--resume|--overwrite] [key=value ...]"
    local collection=$1 feature=$2 mode=$3 labels=$4 target=$5 root=$6 scenario weight=0.55 config out device rest
    case $mode,$labels in
        parallel,human_label) scenario=parallel weight=0.85 ;;
        parallel,translate) scenario=translate ;;
        unparallel,human_label) scenario=unparallel ;;
        *) fail "TRAIN_MODE LABELS must be parallel human_label, parallel translate or unparallel human_label, not '$mode $labels'" ;;
    esac
    [ "$collection" != msrvtt10k ] || collection=msrvtt10kyu
    config=${CONFIG:-$checkout/configs/mlcmr/$collection-$scenario-$target.yaml}
    [ -f "$config" ] || fail "$config: no such configuration; give another as CONFIG=FILE"
    split_gpu "${@:7}"
    out=$(basename "$config" .yaml)
    [ -z "${CONFIG:-}" ] || out=$out-$scenario-$target # one folder a scenario
    nrccr train "$config" --root "$root" "${device[@]}" --test --out "${OUT:-runs/$out-s$(seed_of "${rest[@]}")}" \
        "data.collection=$collection" "data.feature=$feature" "data.scenario=$scenario" "data.target=$target" \
        "evaluation.target_weight=$weight" "${rest[@]}"
}

# test_mlcmr COLLECTION ROOTPATH MODELDIR [GPU] [options] [key=value ...]
test_mlcmr() {
    [ $# -ge 3 ] || fail "usage: $0 COLLECTION ROOTPATH MODELDIR [GPU|cpu] [--split val] [--out FOLDER] [key=value ...]"
    local device rest
    split_gpu "${@:4}"
    nrccr test "$3" --root "$2" "${device[@]}" "data.collection=$1" "${rest[@]}"
}
