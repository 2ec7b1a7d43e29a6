#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shell.sh ROOT: shellcheck finds nothing in the scripts (in tests: no warning). Exit 77 (skipped) without shellcheck.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

if ! command -v shellcheck >/dev/null; then
    printf 'no shellcheck on this machine\n'
    exit 77
fi
check() {
    local severity=$1 folder=$2
    report_lines "" < <(files "$folder" -- -name '*.sh' -o -name '*.sbatch' -o -name '*.pbs' -o -name '*.bsub' -o -path ./.ci/run |
        tr '\n' '\0' | xargs -0 -r shellcheck -x -P . --severity="$severity" --format=gcc || true)
}

# what users run is held to every rule; test scripts to those that mean mistakes
check style ./hpc
check style ./.ci
check warning ./tests
finish
