# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the lints share; to be sourced. A lint takes the root of the tree as its first argument, prints one line
# "path:line: what is wrong" for each finding and exits with 1 if there is one.
set -euo pipefail
LC_ALL=C
export LC_ALL

root=${1:?usage: $0 ROOT}
cd "$root"
findings=0

# files FOLDER... -- FIND_WORDS...: paths of the tree's own files, without what is built or fetched.
files() {
    local -a folders=()
    while [[ "$1" != -- ]]; do
        [[ ! -e "$1" ]] || folders+=("$1")
        shift
    done
    shift
    [[ ${#folders[@]} -gt 0 ]] || return 0
    find "${folders[@]}" \( -path ./.git -o -path './build*' -o -path ./data -o -path ./runs -o -path './.[wg]*' \) -prune -o \
        -type f \( "$@" \) -print | sed 's|^\./||' | sort
}

finding() {
    printf '%s\n' "$*"
    findings=$((findings + 1))
}

# Turns lines on standard input into findings.
report_lines() {
    local line
    while IFS= read -r line; do
        finding "$1$line"
    done
}

finish() {
    if ((findings > 0)); then
        printf '%s: %d findings\n' "${0##*/}" "$findings"
        exit 1
    fi
}
