# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the scripts of hpc/ and tests/ share; to be sourced. Defines functions and sets nothing but the variables
# that `use_open_mpi_here` exports.

die() {
    local code=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$code"
}

# Number of processors this process may use (nproc alone would answer with OMP_NUM_THREADS).
core_count() {
    env -u OMP_NUM_THREADS nproc 2>/dev/null || printf '1\n'
}

# Seconds as m:ss.
minutes_seconds() {
    printf '%d:%02d' "$(($1 / 60))" "$(($1 % 60))"
}

# Open MPI on one machine, where there may be more ranks than cores: ranks are not pinned and give up a core they
# only spin on. Root is refused by mpirun unless told otherwise; containers run as root. What the user set stays.
use_open_mpi_here() {
    export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
    export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
    export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
    if [[ $(id -u) -eq 0 ]]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
}

# follow PID LOG: while the process lives, shows the last line of its log: in place on a terminal, else every ten
# seconds. Returns the process's exit status.
follow() {
    local pid=$1 log=$2 ticks=0 line columns
    columns=$(tput cols 2>/dev/null || printf '100')
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        ticks=$((ticks + 1))
        line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c "1-$((columns - 8))") || line=""
        if [[ -t 1 ]]; then
            printf '\r\033[K    %s' "$line"
        elif ((ticks % 20 == 0)); then
            printf '    %s\n' "$line"
        fi
    done
    if [[ -t 1 ]]; then
        printf '\r\033[K'
    fi
    wait "$pid"
}

# apt_get WORDS...: apt-get as root (through sudo otherwise), without questions; another apt at work is waited for.
apt_get() {
    local -a root=()
    if [[ $(id -u) -ne 0 ]]; then
        root=(sudo)
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

# What to say to CMake about CUDA: on a machine without a GPU compiling its kernels is time spent for nothing.
cuda_options() {
    if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
        printf '%s\n' -DGIDD_CUDA=auto -DCMAKE_CUDA_ARCHITECTURES=native
    else
        printf '%s\n' -DGIDD_CUDA=OFF
    fi
}
