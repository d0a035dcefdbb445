# Sourced by the drivers of C2KD; holds what they share.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../driver.sh"

# config_of DATASET STAGE -> the file; DATASET is what the names of the files in configs/c2kd begin with.
config_of() {
    local file=$checkout/configs/c2kd/$1-$2.yaml
    [ -f "$file" ] || fail "DATASET must be msrvtt, youcook2, vatex, rudder or multi30k-small, not '$1'"
    echo "$file"
}

# train_stage STAGE DATASET ROOTPATH GPU [options] [key=value ...]
train_stage() {
    [ $# -ge 4 ] || fail "usage: [CONFIG=FILE] [OUT=FOLDER] $0 DATASET ROOTPATH GPU|cpu [--resume|--overwrite] [key=value ...]"
    local stage=$1 config
    config=$(config_of "$2" "$stage")
    shift 2
    train_and_test "${CONFIG:-$config}" "$@"
}
