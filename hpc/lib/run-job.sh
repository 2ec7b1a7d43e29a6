#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run-job.sh --run-dir DIR [--scheduler slurm|chain|exit|none] [--again COMMAND] -- LAUNCHER WORDS...
#
# Runs one training job so that it survives preemption; every job script ends in `exec bash hpc/lib/run-job.sh ...`.
# To the launcher's words are added run.dir=DIR and, where it is known, run.end_time=SECONDS.
#
#   signals   USR1 and TERM to this script become USR1 to the launcher, which passes it to all ranks: they save,
#             agree and exit with 75. (TERM to mpirun itself would kill the ranks a second later.)
#   rerun     on 75, 76, 134, 137, 139, 205 (saved; peer lost; aborted; killed; crashed; host lost), and, if this
#             script forwarded a signal, on 1 (mpirun that got a TERM as well says 1, whatever the ranks did) and 138
#             (it was too young to catch USR1). Never on 79 (stopped on request) nor on any other code, and not
#             after 3 starts in a row without a new checkpoint.
#   how       slurm: scontrol requeue. chain: COMMAND submits the next job. exit: the exit code alone, 75, tells the
#             scheduler (LSF's -Q). none: starts again right here; Ctrl-C then saves and ends.
#
# The exit code is the launcher's; 75 where a rerun is due, so that the reason is always the same one.
set -euo pipefail

readonly starts_allowed=3
run_dir="" scheduler=none again="" forwarded=no interrupted=no stop_here=no pid=""
launcher=()

say() {
    printf '%s run-job: %s\n' "$(date '+%F %T')" "$*"
}

usage() {
    sed -n '4s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 64
}

read_options() {
    while [[ $# -gt 0 ]]; do
        case "$1" in
            --run-dir) run_dir=${2:-} && shift 2 ;;
            --scheduler) scheduler=${2:-} && shift 2 ;;
            --again) again=${2:-} && shift 2 ;;
            --) shift && launcher=("$@") && break ;;
            *) usage ;;
        esac
    done
    [[ -n "$run_dir" && ${#launcher[@]} -gt 0 ]] || usage
    [[ "$scheduler" =~ ^(slurm|chain|exit|none)$ ]] || usage
    [[ "$scheduler" != chain || -n "$again" ]] || usage
}

# When the job will be ended, in seconds since 1970; nothing where that cannot be learnt.
end_of_job() {
    local text
    if [[ -n "${GIDD_END_TIME:-}" ]]; then
        printf '%s\n' "$GIDD_END_TIME"
    elif [[ -n "${SLURM_JOB_ID:-}" ]] && command -v squeue >/dev/null; then
        text=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null) && date -d "$text" +%s 2>/dev/null
    elif [[ -n "${PBS_JOBID:-}" ]] && command -v qstat >/dev/null; then
        text=$(qstat -f "$PBS_JOBID" 2>/dev/null | sed -n 's/^ *Resource_List\.walltime = *//p')
        [[ "$text" =~ ^[0-9]+:[0-9]+:[0-9]+$ ]] || return 0
        awk -F: -v now="$(date +%s)" '{ print now + 3600 * $1 + 60 * $2 + $3 }' <<<"$text"
    fi || true
}

# The launcher's words with the overrides at the end of each program's own (mpirun separates programs by ":").
compose_command() {
    local -a added=("run.dir=$run_dir")
    local end word
    end=$(end_of_job)
    [[ -z "$end" ]] || added+=("run.end_time=$end")
    command_words=()
    for word in "${launcher[@]}"; do
        [[ "$word" != : ]] || command_words+=("${added[@]}")
        command_words+=("$word")
    done
    command_words+=("${added[@]}")
}

newest_checkpoint() {
    local path newest=none
    for path in "$run_dir"/checkpoints/step-*/manifest.json; do
        [[ ! -f "$path" || "$path" == *damaged* ]] || newest=$(basename "$(dirname "$path")")
    done
    printf '%s\n' "$newest"
}

# Sets `starts`: how many starts in a row began at the checkpoint that is the newest now, this one included.
count_start() {
    local known="" newest
    newest=$(newest_checkpoint)
    starts=0
    mkdir -p "$run_dir"
    [[ ! -f "$run_dir/job.starts" ]] || read -r known starts <"$run_dir/job.starts" || true
    [[ "$known" == "$newest" && "$starts" =~ ^[0-9]+$ ]] || starts=0
    starts=$((starts + 1))
    printf '%s %d\n' "$newest" "$starts" >"$run_dir/job.starts.$$"
    mv -f "$run_dir/job.starts.$$" "$run_dir/job.starts"
    began_at=$newest
}

forward() {
    interrupted=yes
    forwarded=yes
    [[ "$1" != INT ]] || stop_here=yes
    if [[ -n "$pid" ]]; then
        say "got $1: USR1 to the launcher, which saves and ends"
        kill -USR1 "$pid" 2>/dev/null || true
    fi
}

# Sets `code`. A signal interrupts `wait`; the next one returns the launcher's own status.
run_launcher() {
    compose_command
    if [[ "$forwarded" = yes ]]; then # the signal came first: nothing to save, and a rerun is due
        code=75
        return 0
    fi
    say "start $starts from checkpoint $began_at: ${command_words[*]}"
    set -m # a process group of its own: Ctrl-C reaches this script, not mpirun
    "${shield[@]}" "${command_words[@]}" </dev/null &
    pid=$!
    set +m
    while :; do
        interrupted=no
        code=0
        wait "$pid" || code=$?
        [[ "$interrupted" = yes ]] || break
    done
    pid=""
}

is_rerun_due() {
    case "$code" in
        75 | 76 | 134 | 137 | 139 | 205) ;;
        1 | 138) [[ "$forwarded" = yes ]] || return 1 ;;
        *) return 1 ;;
    esac
    if [[ "$starts" -ge "$starts_allowed" && "$(newest_checkpoint)" == "$began_at" ]]; then
        say "exit code $code; $starts starts in a row and no checkpoint after $began_at: giving up"
        return 1
    fi
}

# Asks for the next start; returns 1 where the loop below is to make it.
ask_for_rerun() {
    case "$scheduler" in
        slurm)
            say "exit code $code: requeueing job $SLURM_JOB_ID"
            scontrol requeue "$SLURM_JOB_ID" || say "requeue refused: it may be under way already"
            ;;
        chain)
            say "exit code $code: submitting the next job: $again"
            bash -c "$again"
            ;;
        exit) say "exit code $code: the scheduler requeues the job" ;;
        none)
            [[ "$stop_here" = no && "$forwarded" = no ]] || return 0
            say "exit code $code: starting again"
            return 1
            ;;
    esac
}

# A scheduler's own TERM reaches mpirun as well, which would kill the ranks a second later, in the middle of their
# checkpoint. Blocked, it never arrives there; the ranks get it unblocked, save and leave. An env that cannot block
# (coreutils before 8.31): mpirun is told to wait instead, which makes every end that is no success a minute longer.
shield_launcher() {
    shield=()
    if env --block-signal=TERM true 2>/dev/null; then
        shield=(env --block-signal=TERM)
    else
        export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout:-30}"
    fi
}

main() {
    read_options "$@"
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
    trap 'forward INT' INT
    shield_launcher
    # A host that vanishes is noticed after about half a minute instead of minutes.
    export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-15}"
    export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-5}"
    export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-3}"
    while :; do
        count_start
        run_launcher
        if ! is_rerun_due; then
            say "exit code $code: done"
            exit "$code"
        fi
        ! ask_for_rerun || exit 75
        sleep "${GIDD_RERUN_PAUSE:-2}"
    done
}

main "$@"
