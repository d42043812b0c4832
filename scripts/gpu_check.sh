#!/usr/bin/env bash
# Everything that d2serve has to show on a GPU, most important first, in less than 8 minutes. Needs
# a Python with d2serve's packages; nothing is installed, and no network is used.
#
#   scripts/gpu_check.sh [--device cuda|cpu] [--quick] [--output out/gpu] [STEP...]
#
# Each step has a time limit of its own and leaves NAME.log and its results in the output folder,
# also when it fails or is ended; the summary is in summary.txt. Exit status 1 if a step failed.
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda quick=() output=out/gpu steps=()
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --quick) quick=(--quick); shift ;;
    -*) echo "gpu_check.sh: received $1, accepted are --device, --quick and --output" >&2; exit 2 ;;
    *) steps+=("$1"); shift ;;
  esac
done
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/handler${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
mkdir -p "$output"
failed=0

# step NAME SECONDS COMMAND...: SIGINT first, so that the benchmarks write what they have.
step() {
  local name=$1 limit=$2 started=$SECONDS status=0
  shift 2
  if [ ${#steps[@]} -gt 0 ] && [[ " ${steps[*]} " != *" $name "* ]]; then return; fi
  timeout --foreground --signal=INT --kill-after=10 "$limit" "$@" >"$output/$name.log" 2>&1 || status=$?
  [ "$status" = 0 ] || failed=1
  echo "$name: exit status $status after $((SECONDS - started)) s of $limit" | tee -a "$output/summary.txt"
  tail -n "${LINES_SHOWN:-6}" "$output/$name.log"
}

bench() {
  local limit=$1 stage=$2
  shift 2
  step "$stage" "$limit" "$python" -m bench gpu --device "$device" ${quick[@]+"${quick[@]}"} \
    --output "$output" --only "$stage" "$@"
}

describe() {
  nvidia-smi || true
  "$python" -c 'import torch, torchvision; print(torch.__version__, torchvision.__version__, torch.version.cuda)'
}
export -f describe
export python

: >"$output/summary.txt"
step versions 20 bash -c describe
step tests 130 "$python" -m pytest -q -p no:cacheprovider -m gpu \
  tests/model/test_gpu.py tests/inputs/test_gpu_jpeg.py tests/core/test_gpu_pipeline.py
bench 110 forward --seconds 1.5 --precisions bf16 fp16 fp32
bench 30 profile --batches 8 --precisions bf16
bench 90 http
bench 40 requests --seconds 2 --precisions bf16 --batches 1 8 32
bench 20 decode --seconds 1
bench 20 masks --seconds 1
bench 50 compile --seconds 1 --precisions bf16 --batches 8
exit $failed
