#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash hpc/setup.sh [--tests | --pip] [--missing]
#
# Installs with apt what building gidd needs and is not there yet (--tests: what its tests and CI need as well;
# --pip: Python's pip alone). Debian 12 and 13, Ubuntu 22.04 and 24.04. As root, or through sudo, which is asked
# for only when something is missing. --missing only prints the names. Elsewhere it says what is needed.
set -euo pipefail
# shellcheck source=hpc/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

build_packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev
    libarchive-dev libyaml-dev libjansson-dev libxxhash-dev libdnnl-dev zlib1g-dev)
test_packages=(libcriterion-dev hdf5-tools xz-utils zstd zip clang shellcheck slurm-wlm munge)

usage() {
    sed -n '4,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

is_installed() {
    [[ "$(dpkg-query -W -f='${Status}' "$1" 2>/dev/null)" == *" installed" ]]
}

main() {
    local -a wanted=("${build_packages[@]}") missing=()
    local word package only_names=no
    for word in "$@"; do
        case "$word" in
            --tests) wanted+=("${test_packages[@]}") ;;
            --pip) wanted=(python3-pip ca-certificates) ;;
            --missing) only_names=yes ;;
            --help) usage && return 0 ;;
            *) usage >&2 && return 64 ;;
        esac
    done
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        printf 'setup: no apt on this system; needed, by the names of Debian packages: %s\n' "${wanted[*]}" >&2
        return 0
    fi
    for package in "${wanted[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    if [[ "$only_names" = yes ]]; then
        printf '%s\n' "${missing[*]}"
        return 0
    fi
    if [[ ${#missing[@]} -eq 0 ]]; then
        printf 'setup: all %d packages are there\n' "${#wanted[@]}"
        return 0
    fi
    printf 'setup: to install: %s\n' "${missing[*]}"
    if [[ $(id -u) -ne 0 ]] && ! command -v sudo >/dev/null; then
        die 69 "not root and no sudo: ask your administrator for the packages above"
    fi
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
    printf 'setup: installed %d packages\n' "${#missing[@]}"
}

main "$@"
