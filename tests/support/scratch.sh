# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tests of whole programs share; to be sourced: $work, a folder that goes when the script ends; one thread a rank;
# and `die`, which also shows the ends of the logs in $work.
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

die() {
    printf 'FAIL %s: %s\n' "${scenario:-${0##*/}}" "$*" >&2
    for log in "$work"/*.log; do
        printf -- '---- %s\n' "$log" >&2
        tail -n 40 "$log" >&2
    done
    exit 1
}
