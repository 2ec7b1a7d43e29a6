#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [--device cuda|emu|cpu] [--short] [--minutes N] [--peak TFLOPS] [--report FILE] [--bin FOLDER] [PART...]
#
# Everything that this project has to show on a GPU, with one command: on the machine that built it, or, as part of the
# folder that make_bundle.sh makes, on one that has neither MPI nor HDF5 nor Criterion. Prints a table last and writes
# all output to a report. Parts run in the order below, each under a limit of its own; one that fails does not keep the
# next from running. --device emu and cpu run the same script where there is no GPU, --short does less of each part.
# --peak says what the GPU's maker promises in bf16 (H100: 989), to give steps as a share of that too.
#
#   kernels    every kernel against the CPU's reference, random inputs, fp32 and bf16, derived tolerances
#   parity     the network against an independent implementation's numbers, fp32 and bf16
#   repeat     two equal runs are equal bytes: metrics.jsonl and state.bin
#   training   200 steps of a small model on the device and on the CPU (see compare_runs.awk for the bound)
#   recompute  training.recompute changes no bit
#   graphs     device.graphs on and off are the same bits
#   nccl       comm.backend=nccl with one rank; the same bits as mpi
#   gemm       gidd-bench: a large product and a copy, which are the ceilings, and the matrix products of SMALL
#   step base  gidd-bench: the training step of SMALL and of BASE, bf16, each part against its floor
#   memcheck racecheck initcheck       compute-sanitizer on kernel tests
#
# Exit: 0 nothing failed, 1 something did, 64 usage, 77 there is no such device.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly all_parts="kernels parity repeat training recompute graphs nccl gemm step base memcheck racecheck initcheck"
device=cuda minutes=8 report='' bin='' short=0 parts='' peak=''

usage() {
    sed -n '4,24s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

while [[ $# -gt 0 ]]; do
    case $1 in
        --device | --minutes | --report | --bin | --peak)
            [[ $# -gt 1 ]] || usage 64 >&2
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --short) short=1 ;;
        --help) usage 0 ;;
        *)
            [[ " $all_parts " = *" $1 "* ]] || usage 64 >&2
            parts+=" $1"
            ;;
    esac
    shift
done
[[ "$device" =~ ^(cuda|emu|cpu)$ && "$minutes" =~ ^[0-9]+$ && "$peak" =~ ^[0-9.]*$ ]] || usage 64 >&2

# ---- where things are: beside this script in a bundle, in a build and the source tree otherwise
if [[ -e "$here/COMMIT" ]]; then
    # shellcheck source=/dev/null
    BUNDLE=$here . "$here/env.sh"
    bin=${bin:-$here/bin} golden=$here/golden data=$here/shards kernel_list=$here/device_tests.txt commit=$(<"$here/COMMIT")
else
    source=$(cd "$here/../.." && pwd)
    # shellcheck source=hpc/lib/common.sh
    . "$source/hpc/lib/common.sh" && use_open_mpi_here
    bin=${bin:-$source/build/gpu/bin} golden=$source/tests/golden data='' kernel_list=$source/tests/kernels/device_tests.txt
    commit=$(git -C "$source" describe --always --dirty 2>/dev/null || printf unknown)
fi
[[ -x "$bin/device_present" ]] || {
    printf 'run.sh: no programs in %s: build them, or make a bundle with tests/gpu/make_bundle.sh\n' "$bin" >&2
    exit 64
}
if ! described=$("$bin/device_present" "$device" 2>&1); then
    printf 'run.sh: no device %s on this machine: %s\n' "$device" "$described" >&2
    exit 77
fi
report=${report:-$PWD/gpu-report-$(date -u +%Y%m%d-%H%M%S).txt}
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-gpu-XXXXXX")
trap 'rm -rf "$work"' EXIT
export GIDD_TEST_DEVICE=$device OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

# ---- one part after the other
names=() results=() seconds=() notes=()

# run_part NAME LIMIT_S: part_NAME in a shell of its own. It says why it skips with exit 77, and ends with a line for
# the table.
run_part() {
    local name=$1 limit=$2 began=$SECONDS code=0 left=$((minutes * 60 - SECONDS))
    [[ $left -lt $limit ]] && limit=$left
    names+=("$name")
    printf '\n==== %s\n' "$name" >>"$report"
    if [[ $limit -le 0 ]]; then
        results+=("not run") seconds+=(0) notes+=("the $minutes minutes are over")
        return
    fi
    printf '%-10s ...' "$name" >&2
    timeout --kill-after=5 "$limit" bash -c "set -uo pipefail; $(declare -f); part_$name" >"$work/part.log" 2>&1 || code=$?
    cat "$work/part.log" >>"$report"
    case $code in
        0) results+=(ok) ;;
        77) results+=(skipped) ;;
        124 | 137) results+=(TIMEOUT) ;;
        *) results+=(FAILED) ;;
    esac
    seconds+=($((SECONDS - began)))
    notes+=("$(tail -n 1 "$work/part.log" | cut -c 1-100)")
    printf '\r\033[K' >&2
}

# ---- parts
kernel_tests() {
    if [[ $short = 1 ]]; then
        printf 'device update'
    else
        cat "$kernel_list"
    fi
}

part_kernels() {
    local name failed=0 passed=0
    for name in $(kernel_tests); do
        printf -- '-- test_%s\n' "$name"
        "$bin/test_$name" -j1 --timeout 120 && passed=$((passed + 1)) || failed=$((failed + 1))
    done
    printf '%d of %d programs pass\n' "$passed" $((passed + failed))
    [[ $failed = 0 ]]
}

part_parity() {
    local precision code=0
    if [[ $short = 1 ]]; then
        "$bin/gidd-parity" --device "$device" --section noise "$golden/micro.h5" || code=1
    else
        for precision in fp32 bf16; do
            "$bin/gidd-parity" --device "$device" --precision "$precision" "$golden/micro.h5" || code=1
            "$bin/gidd-parity" --device "$device" --precision "$precision" "$golden/decoder.h5" || code=1
        done
        "$bin/gidd-parity" --device "$device" "$golden/odd_kernels.h5" || code=1
    fi
    printf '%d sections agree, %d do not\n' "$(grep -c ' ok$' "$work/part.log")" "$(grep -c ' FAIL$' "$work/part.log")"
    return $code
}

make_config() {
    local steps=200 model='hidden_size: 64, blocks: 3, heads: 2, cond_size: 32, context: 64'
    if [[ $short = 1 ]]; then
        steps=3 model='hidden_size: 16, blocks: 2, heads: 1, cond_size: 8, context: 8'
    fi
    if [[ ! -e "$work/config.yaml" ]]; then
        cat >"$work/config.yaml" <<YAML
run: {seed: 7}
data: {dir: ${data:-$work/shards}, tokenizer: $here/../fixtures/tokenizer, suffixes: h, valid_documents: 8}
model: {$model, p_uniform: 0.1}
optimizer: {lr: 1.0e-3, warmup_steps: 2}
training: {steps: $steps, global_batch: 8, micro_batch: 4, precision: fp32}
checkpoint: {every_steps: 0, keep_last: 1}
eval: {every_steps: 0, documents: 8}
log: {every_steps: 1, tensorboard: off}
YAML
    fi
    if [[ -z "$data" && ! -e "$work/shards/index.json" ]]; then
        "$bin/gidd-shard" --config "$work/config.yaml" --input "$here/../../src" --output "$work/shards"
    fi
}

# train RUN [key=value...]
train() {
    local run=$1
    shift
    make_config || return 1
    "$bin/gidd-worker" --config "$work/config.yaml" "run.dir=$work/$run" "device.kind=$device" "$@"
}

same_bits() {
    local last
    last=$(cd "$work/$1/checkpoints" && printf '%s\n' step-????????? | tail -n 1)
    cmp "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" &&
        cmp "$work/$1/checkpoints/$last/state.bin" "$work/$2/checkpoints/$last/state.bin" || {
        printf '%s and %s differ\n' "$1" "$2"
        return 1
    }
    printf 'the same bytes after %d steps\n' "$((10#${last#step-}))"
}

# base: the run that others are held against; made by the first part that needs it.
base_run() {
    [[ -e "$work/base.done" ]] || { train base && touch "$work/base.done"; }
}

part_repeat() {
    base_run && train again && same_bits base again
}

part_training() {
    base_run && train cpu device.kind=cpu && train control device.kind=cpu training.micro_batch=2 || return 1
    awk -f "$here/compare_runs.awk" "$work/cpu/metrics.jsonl" "$work/control/metrics.jsonl" "$work/base/metrics.jsonl" ||
        return 1
}

part_recompute() {
    base_run && train recomputed training.recompute=block && same_bits base recomputed
}

part_graphs() {
    base_run && train plain device.graphs=off && train graphs device.graphs=on || return 1
    same_bits plain graphs
}

part_nccl() {
    [[ $device = cuda ]] || { printf 'NCCL wants device cuda\n'; return 77; }
    train mpi comm.backend=mpi training.steps=20 || return 1
    train nccl comm.backend=nccl training.steps=20 || return 1
    if ! grep -qi '"reduction": .*nccl' "$work"/nccl/checkpoints/step-*/manifest.json; then
        printf 'this build does not reduce by NCCL\n'
        return 77
    fi
    same_bits mpi nccl
}

bench() {
    "$bin/gidd-bench" "$@" "device.kind=$device" | tee "$work/bench.txt" || return 1
    tail -n 1 "$work/bench.txt" >>"$work/bench.jsonl"
}

# The models of configs/, which a bundle has not; with --short one to try this script with.
model_of() {
    if [[ $short = 1 ]]; then
        printf 'model.blocks=1 model.hidden_size=16 model.heads=1 model.context=8 --repeats=1 --warmup=1'
    elif [[ $1 = small ]]; then
        printf 'model.blocks=12 model.hidden_size=768 model.heads=12'
    else
        printf 'model.blocks=24 model.hidden_size=1024 model.heads=16'
    fi
}

# bench_model COMMAND SIZE [OPTION...]: with the micro-batch of the comparison, or a smaller one that the memory holds.
bench_model() {
    local command=$1 size=$2 batch batches='64 16'
    local -a model
    shift 2
    [[ $device = cuda ]] || batches=2
    read -ra model <<<"$(model_of "$size")"
    for batch in $batches; do
        if bench "$command" "${model[@]}" "training.global_batch=$batch" "training.micro_batch=$batch" "$@"; then
            awk -v batch="$batch" '$1 ~ /^(tokens_per_s|executed_of_ceiling_percent|ceiling_bf16_(gflop_per_s|gb_per_s))$/ {
                printf "%s %s, ", $1, $2 } END { print "batch " batch }' "$work/bench.txt"
            return 0
        fi
    done
    return 1
}

bench_steps() {
    bench_model step "$1" training.precision=bf16 ${peak:+--peak="$peak"}
}

part_step() { bench_steps small; }
part_base() { bench_steps base; }

part_gemm() {
    [[ $device != emu ]] || { printf "emu multiplies as the CPU does\n"; return 77; }
    bench_model gemm small
}

# sanitize TOOL TESTS...: a few tests in one process each; forks of Criterion are followed.
sanitize() {
    local tool=$1 sanitizer name code=0
    shift
    [[ $device = cuda ]] || { printf 'compute-sanitizer wants device cuda\n'; return 77; }
    sanitizer=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | tail -n 1) || {
        printf 'compute-sanitizer is not on this machine\n'
        return 77
    }
    for name in "$@"; do
        printf -- '-- %s test_%s\n' "$tool" "$name"
        "$sanitizer" --tool "$tool" --target-processes all --error-exitcode 1 "$bin/test_$name" -j1 --timeout 600 || code=1
    done
    grep -h 'ERROR SUMMARY' "$work/part.log" | sort | uniq -c | tail -n 1
    return $code
}

part_memcheck() { sanitize memcheck norm_mod embed attention loss update; }
part_racecheck() { sanitize racecheck norm_mod attention loss; }
part_initcheck() { sanitize initcheck norm_mod attention; }

limit_of() {
    case $1 in
        kernels) printf 120 ;;
        parity | training) printf 90 ;;
        gemm | step | base) printf 90 ;;
        memcheck | racecheck | initcheck) printf 100 ;;
        *) printf 45 ;;
    esac
}

print_table() {
    local i
    printf '\ngidd %s on %s: %s\n' "$commit" "$device" "$described"
    for i in "${!names[@]}"; do
        printf '  %-10s %-8s %4d s  %s\n' "${names[i]}" "${results[i]}" "${seconds[i]}" "${notes[i]}"
    done
}

# What the parts, each in a shell of its own, need of these variables.
export here bin golden data device kernel_list short work peak

{
    printf 'gidd %s, %s\ndevice %s: %s\nhost: %s\n' "$commit" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$device" "$described" \
        "$(uname -srm), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
    fi
} >"$report"
for part in ${parts:-$all_parts}; do
    limit=$(limit_of "$part")
    [[ $device = cuda ]] || limit=$((limit * 4))
    run_part "$part" "$limit"
done
print_table | tee -a "$report"
printf 'report: %s\n' "$report"
[[ "${results[*]}" != *FAILED* && "${results[*]}" != *TIMEOUT* ]]
