#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash hpc/quickstart.sh [CORPUS]
#
# From nothing to samples in under ten minutes on two cores: installs what is missing, builds, fetches GPT-2's
# tokenizer and an English corpus, shards it, trains a small model, interrupts and resumes it once, evaluates,
# draws samples and plots the loss. CORPUS (or $GIDD_CORPUS): a folder or archive of texts to use instead.
# Run again it reuses what is there, and trains on for its minutes until the last step is reached.
#
#     GIDD_QUICKSTART_MINUTES   minutes of training in one run (default 5.5)
#     GIDD_TOKENIZER_DIR        a folder that holds vocab.bpe and encoder.json already
#
# Everything made lies in build/, data/ and runs/demo/; the logs of the phases in data/demo/log/.
set -euo pipefail
corpus=${1:-${GIDD_CORPUS:-}}
[[ -z "$corpus" ]] || corpus=$(realpath -m -- "$corpus")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hpc/lib/common.sh
. hpc/lib/common.sh

readonly config=configs/demo.yaml shards=data/demo/shards run=runs/demo logs=data/demo/log bin=build/bin
readonly minutes=${GIDD_QUICKSTART_MINUTES:-5.5}
readonly programs=(gidd-shard gidd-worker gidd-eval gidd-sample gidd-checkpoint gidd-tokenize gidd-plot)
phase_name="start" phase_log="" mpirun_pid=""

# phase NAME SECONDS FUNCTION: the budget is what two cores and a usual network need; it is shown, not enforced.
phase() {
    local began=$SECONDS
    phase_name=$1
    phase_log=$logs/$3.log
    : >"$phase_log"
    printf '\n== %s (budget %s; %s since the start)\n' "$1" "$(minutes_seconds "$2")" "$(minutes_seconds "$SECONDS")"
    "$3"
    printf '== %s: done in %s\n' "$1" "$(minutes_seconds $((SECONDS - began)))"
}

say_goodbye() {
    local code=$?
    if [[ $code -ne 0 ]]; then
        printf '\nquickstart: "%s" failed with exit code %d' "$phase_name" "$code" >&2
        [[ -z "$phase_log" ]] || printf '; its log is %s' "$phase_log" >&2
        printf '\n' >&2
    fi
}

# Ctrl-C or a kill of this script: the training is asked for a last checkpoint before the script ends.
leave_early() {
    if [[ -n "$mpirun_pid" ]]; then
        printf '\nquickstart: asking the training for a last checkpoint\n' >&2
        kill -USR1 "$mpirun_pid" 2>/dev/null || true
        wait "$mpirun_pid" || true
    fi
    exit 130
}

# Runs a command with its output in the phase's log and its last line on the screen.
quietly() {
    "$@" >>"$phase_log" 2>&1 </dev/null &
    follow $! "$phase_log" || {
        local code=$?
        tail -n 20 "$phase_log" >&2
        return "$code"
    }
}

# Runs a command with its output on the screen and in the phase's log.
openly() {
    "$@" 2>&1 </dev/null | tee -a "$phase_log"
}

install_packages() {
    if [[ -n "$(bash hpc/setup.sh --missing 2>/dev/null)" && $(id -u) -ne 0 ]] && command -v sudo >/dev/null; then
        sudo -v # asks for the password here, where it can be seen
    fi
    quietly bash hpc/setup.sh
    tail -n 1 "$phase_log"
}

build_programs() {
    local -a generator=() cuda
    mapfile -t cuda < <(cuda_options)
    if [[ ! -f build/CMakeCache.txt ]] && command -v ninja >/dev/null; then
        generator=(-G Ninja)
    fi
    quietly cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGIDD_TESTS=OFF \
        "${cuda[@]}"
    quietly cmake --build build --parallel "$(core_count)" --target "${programs[@]}"
}

fetch_tokenizer() {
    openly bash hpc/fetch-tokenizer.sh data/tokenizer
}

fetch_corpus() {
    if [[ -n "$corpus" ]]; then
        [[ -e "$corpus" ]] || die 66 "the corpus $corpus is not there"
        printf 'corpus: %s, as asked for\n' "$corpus"
    else
        corpus=data/demo/corpus
        openly bash hpc/fetch-corpus.sh "$corpus"
    fi
    # Shards of another corpus would silently be used instead, and the run resumed on them.
    if [[ -f data/demo/corpus.path && "$(<data/demo/corpus.path)" != "$corpus" ]]; then
        die 64 "data/demo was made from $(<data/demo/corpus.path); remove data/demo and $run to start over"
    fi
    printf '%s\n' "$corpus" >data/demo/corpus.path
}

shard_corpus() {
    if [[ -f "$shards/index.json" ]] && openly "$bin/gidd-shard" verify "$shards"; then
        printf 'shards: %s are there\n' "$shards"
        return 0
    fi
    openly mpirun -q -np 2 "$bin/gidd-shard" --config "$config" --input "$corpus" --output "$shards"
    openly "$bin/gidd-shard" info "$shards"
}

# The last step in metrics.jsonl, 0 before there is one.
last_step() {
    local step
    step=$(tail -n 1 "$run/metrics.jsonl" 2>/dev/null | grep -oE '"step": *[0-9]+' | grep -oE '[0-9]+$') || step=0
    printf '%d' "$step"
}

has_checkpoint() {
    compgen -G "$run/checkpoints/step-*/manifest.json" >/dev/null
}

# start_training SECONDS: in the background and in a process group of its own, so that Ctrl-C does not reach it.
# (-q: exit codes 75 and 79 are no errors, and mpirun would explain them as such.)
start_training() {
    local limit
    limit=$(awk -v s="$1" 'BEGIN { printf "%.3f", s / 60 }')
    printf -- '-- mpirun -np 2 gidd-worker --config %s run.max_minutes=%s\n' "$config" "$limit"
    set -m
    mpirun -q -np 2 "$bin/gidd-worker" --config "$config" run.max_minutes="$limit" \
        > >(tee -a "$phase_log") 2>&1 </dev/null &
    mpirun_pid=$!
    set +m
}

# Sets training_code to the exit code of mpirun, which is that of all ranks.
wait_for_training() {
    training_code=0
    wait "$mpirun_pid" || training_code=$?
    mpirun_pid=""
}

# interrupt_after SECONDS STEPS: USR1 to mpirun reaches every rank; all save, agree and exit with 75.
interrupt_after() {
    local began=$SECONDS
    while kill -0 "$mpirun_pid" 2>/dev/null; do
        sleep 0.5
        if (($(last_step) > 0)) && ((SECONDS - began >= $1 || $(last_step) >= $2)); then
            printf -- '-- interrupting: SIGUSR1 to mpirun, as a job script does when its time is up\n'
            kill -USR1 "$mpirun_pid" 2>/dev/null || true
            return 0
        fi
    done
}

train() {
    local seconds began=$SECONDS steps
    seconds=$(awk -v m="$minutes" 'BEGIN { printf "%d", m * 60 }')
    if ! has_checkpoint; then
        steps=$(sed -n 's/^  steps: *//p' "$config")
        start_training "$seconds"
        interrupt_after $((seconds / 3)) $((steps / 3))
        wait_for_training
        case "$training_code" in
            75) printf -- '-- exit code 75: "checkpoint committed, run me again". So:\n' ;;
            0) printf -- '-- the training finished before it could be interrupted\n' ;;
            *) return "$training_code" ;;
        esac
        seconds=$((seconds - (SECONDS - began)))
    fi
    start_training "$((seconds > 20 ? seconds : 20))"
    wait_for_training
    case "$training_code" in
        0) printf -- '-- exit code 0: the last step is done\n' ;;
        75) printf -- '-- exit code 75: the minutes are over at step %d; run this script again to train on\n' "$(last_step)" ;;
        *) return "$training_code" ;;
    esac
}

evaluate() {
    openly mpirun -q -np 2 "$bin/gidd-eval" --checkpoint "$run"
}

# One process with all cores, its error stream left alone: on a terminal it shows its progress there.
draw_samples() {
    mkdir -p "$run/samples"
    OMP_NUM_THREADS=$(core_count) "$bin/gidd-sample" --checkpoint "$run" --num 4 --steps 64 \
        --output "$run/samples/quickstart.txt" </dev/null
    # an untrained model writes control characters too: they are for the file, not for the terminal
    head -c 600 "$run/samples/quickstart.txt" | LC_ALL=C tr -cd '\11\12\40-\176' | tee "$phase_log"
    printf '...\n'
}

plot_loss() {
    openly "$bin/gidd-plot" "$run" --output "$run/loss.svg"
}

print_summary() {
    printf '\n== What was made, in %s\n\n' "$(minutes_seconds "$SECONDS")"
    sed 's/^/    /' "$logs/evaluate.log"
    cat <<TEXT

    $shards           token shards
    $run/checkpoints       checkpoints; $bin/gidd-checkpoint list $run
    $run/metrics.jsonl     loss and ELBO by step
    $run/tensorboard       the same for TensorBoard
    $run/loss.svg          the plot
    $run/samples/quickstart.txt

== What to run next

    bash hpc/quickstart.sh                       train on for $minutes minutes (until the last step)
    $bin/gidd-sample --checkpoint $run --num 4 --steps 128
    $bin/gidd-worker --help                every configuration key
    $bin/gidd-worker --config configs/gidd-small.yaml --dry-run
    bash tests/run.sh                            every test this machine can run
    sbatch hpc/slurm/gidd-small.sbatch           the paper's model on a cluster
TEXT
}

main() {
    mkdir -p "$logs"
    trap say_goodbye EXIT
    trap leave_early INT TERM
    use_open_mpi_here
    # Two ranks share the cores: more threads than cores are slower than one.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(($(core_count) > 3 ? $(core_count) / 2 : 1))}"
    phase "1/9 packages" 60 install_packages
    phase "2/9 build" 120 build_programs
    phase "3/9 tokenizer" 10 fetch_tokenizer
    phase "4/9 corpus" 10 fetch_corpus
    phase "5/9 shards" 20 shard_corpus
    phase "6/9 training, interrupted and resumed once" "$(awk -v m="$minutes" 'BEGIN { printf "%d", m * 60 + 15 }')" train
    phase "7/9 evaluation" 40 evaluate
    phase "8/9 samples" 40 draw_samples
    phase "9/9 plot" 2 plot_loss
    print_summary
}

case "${1:-}" in
    --help) sed -n '4,15s/^# \{0,1\}//p' "hpc/quickstart.sh" ;;
    -*) die 64 "unknown option $1; bash hpc/quickstart.sh --help" ;;
    *) main ;;
esac
