#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# names.sh ROOT: every source starts with its licence line; no two sources share a basename, so that a name finds
# one file; no source holds the path of a person's folder.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

sources() {
    files . -- -name '*.[ch]' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' \
        -o -name '*.cmake' -o -name '*.sbatch' -o -name '*.pbs' -o -name '*.bsub' -o -name '*.yaml' -o -name '*.in' \
        -o -name CMakeLists.txt -o -path ./.ci/run
}

while IFS= read -r path; do
    if ! head -n 2 "$path" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
        finding "$path:1: the first line (after #!) is to be the SPDX line"
    fi
done < <(sources | grep -v '^tests/.*/data/')

report_lines "used twice: " < <(sources | grep -v '^tests/.*/data/' |
    awk -F/ '$NF !~ /^(main\.c|run\.sh|CMakeLists\.txt)$/ { if ($NF in seen) print seen[$NF] " and " $0; seen[$NF] = $0 }')

report_lines "" < <(files . -- -size -1000k ! -name '*.h5' ! -name '*.bin' | tr '\n' '\0' |
    xargs -0 grep -nIE '(^|[^A-Za-z0-9_.*])/(home|root|work|Users)/[A-Za-z]' || true)
finish
